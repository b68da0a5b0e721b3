//! What was written before: texts kept in a file, shared by all runs of one user, and indexed in memory.
//!
//! The drafter reads it when it is built and appends to it when a text ends. It decides neither what is worth keeping
//! nor what is guessed. A failure to append loses that text and nothing else.
//!
//! # The file, version 1
//!
//! Little-endian. A header of 32 bytes: magic `ftnghis1`, the tokenizer's fingerprint (8), a number that differs from
//! file to file (8), FNV-1a of these 24 bytes (8). Then records, one per text: the number of tokens (4), its
//! complement (4), FNV-1a of the tokens (8), the tokens (4 each).
//!
//! # What keeps it whole
//!
//! * Whoever reads or appends holds a lock, for milliseconds: on a file of its own, `<history>.lock`, because the
//!   history itself is replaced now and then. The lock is free when its holder ends, in whatever way.
//! * A record torn by a crash, and whatever stands behind it, is ignored, and cut off by the next append. No one reads
//!   that far, and no one maps this file: it is read into memory, up to the last whole record.
//! * Past its limit the newer half is written to a new file, which then takes the name. Those who have the old one
//!   notice by the number in its header, and read the new one.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use foretoken_drafter::{DraftError, Token};

use crate::suffixes::{Occurrence, SuffixIndex, Walk};
use crate::table::{fnv1a, SEPARATOR};

/// The texts of a history file, indexed.
#[derive(Debug)]
pub struct History {
    file: Store,
    index: SuffixIndex,
    /// Checksums of the texts in the file: a text that is there is not kept twice.
    known: HashSet<u64>,
}

impl History {
    /// Opens the history at `path`, or begins it. It keeps up to `limit` tokens.
    ///
    /// # Errors
    /// The file cannot be read or written, is no history, or holds the tokens of another tokenizer.
    pub fn open(path: &Path, tokenizer: u64, limit: usize, max_match: usize) -> Result<History, DraftError> {
        let file = Store { path: path.to_owned(), tokenizer, limit, number: 0, end: 0 };
        let mut history = History { file, index: SuffixIndex::new(max_match), known: HashSet::new() };
        let wrong = |error: io::Error| {
            let way_out = match error.kind() {
                io::ErrorKind::InvalidData => "",
                _ => "; name a file in a folder that you may write in",
            };
            DraftError::settings(format!("history {}: {error}{way_out}", path.display()))
        };
        // What is no history gets no lock beside it. A history is there whole or not at all, so this needs none.
        match history.file.existing() {
            Ok(mut file) => drop(history.file.number_of(&mut file).map_err(wrong)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong(error)),
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(wrong)?;
        }
        // Whether it can be written is better said now than never.
        let lock = history.file.lock().map_err(wrong)?;
        let mut file = history.file.open().map_err(wrong)?;
        history.catch_up(&mut file).map_err(wrong)?;
        drop(lock);
        Ok(history)
    }

    /// Keep a text, unless the very same is there or it is longer than all that is kept; and learn of those that others
    /// have kept since.
    ///
    /// # Errors
    /// It could not be written. Nothing else is lost.
    pub fn append(&mut self, text: &[Token]) -> io::Result<()> {
        let record = Record::of(text);
        let never_fits = record.bytes.len() > self.file.limit * 4;
        if text.is_empty() || never_fits || self.known.contains(&record.checksum) {
            return Ok(());
        }
        let _lock = self.file.lock()?;
        let mut file = self.file.open()?;
        self.catch_up(&mut file)?;
        if self.known.contains(&record.checksum) {
            return Ok(());
        }
        // What is behind the last whole record is torn.
        file.set_len(self.file.end)?;
        file.seek(SeekFrom::Start(self.file.end))?;
        file.write_all(&record.bytes)?;
        file.sync_data()?;
        self.file.end += record.bytes.len() as u64;
        self.learn(text, record.checksum);
        if self.file.end > HEADER as u64 + self.file.limit as u64 * 4 {
            self.compact(&mut file)?;
        }
        Ok(())
    }

    /// The token at `index`; `None` at the end of a text.
    pub fn token(&self, index: u32) -> Option<Token> {
        self.index.tokens().get(index as usize).copied().filter(|&token| token != SEPARATOR)
    }

    /// As [`SuffixIndex::search`], over all texts. No match goes across two.
    pub fn search(&self, past: &[Token], least: usize, most: usize, walk: &mut Walk, found: &mut Vec<Occurrence>) {
        let past = &past[..past.iter().position(|&token| token == SEPARATOR).unwrap_or(past.len())];
        self.index.search(past, least, most, walk, found);
    }

    /// How many tokens are known, the ends of texts included.
    pub fn n_tokens(&self) -> usize {
        self.index.tokens().len()
    }

    /// Bytes on the heap: what is allocated, whether in use or not.
    pub fn heap_bytes(&self) -> usize {
        // A std set keeps a power of two of slots, at most 7/8 full, with a byte of its own for each.
        let slots = (self.known.capacity() * 8 / 7).next_power_of_two();
        self.index.heap_bytes() + slots * (size_of::<u64>() + 1)
    }

    /// Learn what stands in the file beyond what is known; all of it, if it is another file.
    fn catch_up(&mut self, file: &mut File) -> io::Result<()> {
        let number = self.file.number_of(file)?;
        if number != self.file.number || file.metadata()?.len() < self.file.end {
            self.index = SuffixIndex::new(self.index.max_match());
            self.known.clear();
            (self.file.number, self.file.end) = (number, HEADER as u64);
        }
        file.seek(SeekFrom::Start(self.file.end))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let records: Vec<_> = records(&bytes).collect();
        self.file.end += records.iter().map(|record| record.bytes.len() as u64).sum::<u64>();
        // Whoever wrote the file may have had a larger limit.
        let kept = newest(&records, self.file.limit * 4);
        for (record, kept) in records.iter().zip(kept) {
            match kept {
                true => self.learn(&record.tokens(), record.checksum),
                false => _ = self.known.insert(record.checksum),
            }
        }
        Ok(())
    }

    fn learn(&mut self, text: &[Token], checksum: u64) {
        text.iter().chain([&SEPARATOR]).for_each(|&token| self.index.append(token));
        self.known.insert(checksum);
    }

    /// A new file with the newest records, as many as fill half of the limit, in the place of this one. One that does not
    /// fit is left out, and older ones that do are kept.
    fn compact(&mut self, file: &mut File) -> io::Result<()> {
        file.seek(SeekFrom::Start(HEADER as u64))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let records: Vec<_> = records(&bytes).collect();
        // What was written just now goes before all others, if it may stay at all.
        let last = records.last().map_or(0, |record| record.bytes.len());
        let stays = last <= self.file.limit * 4;
        let room = (self.file.limit * 4 / 2).saturating_sub(if stays { last } else { 0 });
        let mut kept = newest(&records[..records.len().saturating_sub(1)], room);
        kept.push(stays);
        let kept = records.iter().zip(kept).filter(|(_, kept)| *kept).map(|(record, _)| &*record.bytes);
        let mut new = self.file.begin(kept)?;
        self.catch_up(&mut new)
    }
}

/// Where the history is, and how far it is known.
#[derive(Debug)]
struct Store {
    path: PathBuf,
    tokenizer: u64,
    limit: usize,
    /// The number in the header of the file that is known.
    number: u64,
    /// Where its last whole record ends.
    end: u64,
}

impl Store {
    /// Wait for the lock; it is free again when the file is dropped.
    fn lock(&self) -> io::Result<File> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let file = private().create(true).append(true).open(path)?;
        file.lock()?;
        Ok(file)
    }

    /// The file, begun if it is not there. Asks for the lock to be held.
    fn open(&self) -> io::Result<File> {
        match self.existing() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin([]),
            other => other,
        }
    }

    fn existing(&self) -> io::Result<File> {
        private().read(true).write(true).open(&self.path)
    }

    /// A new file with these records, put in the place of any other when it is complete.
    fn begin<'a>(&self, records: impl IntoIterator<Item = &'a [u8]>) -> io::Result<File> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        let mut bytes = [&MAGIC[..], &self.tokenizer.to_le_bytes(), &fresh_number().to_le_bytes()].concat();
        bytes.extend(fnv1a(&bytes).to_le_bytes());
        records.into_iter().for_each(|record| bytes.extend(record));
        file.write_all(&bytes)?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)
    }

    /// The number in the header of `file`.
    fn number_of(&self, file: &mut File) -> io::Result<u64> {
        let mut header = [0; HEADER];
        file.seek(SeekFrom::Start(0))?;
        let read = file.read_exact(&mut header);
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if read.is_err() || &header[..8] != MAGIC {
            return wrong("it is no history of this version; name another file");
        }
        let word = |i: usize| header[8 * i..8 * i + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        if word(3) != fnv1a(&header[..24]) {
            return wrong("its header is damaged; remove it or name another file");
        }
        if word(1) != self.tokenizer && word(1) != 0 && self.tokenizer != 0 {
            return wrong("it holds the tokens of another tokenizer; name another file");
        }
        Ok(word(2))
    }
}

/// One text as it stands in the file.
struct Record<'a> {
    checksum: u64,
    bytes: std::borrow::Cow<'a, [u8]>,
}

impl Record<'_> {
    fn of(text: &[Token]) -> Record<'static> {
        let n = text.len() as u32;
        let tokens: Vec<u8> = text.iter().flat_map(|token| token.to_le_bytes()).collect();
        let checksum = fnv1a(&tokens);
        let bytes = [&n.to_le_bytes(), &(!n).to_le_bytes(), &checksum.to_le_bytes()[..], &tokens].concat();
        Record { checksum, bytes: bytes.into() }
    }

    fn tokens(&self) -> Vec<Token> {
        self.bytes[RECORD..].chunks_exact(4).map(|b| Token::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }
}

/// Which of these records to keep in so many bytes: the newest, those left out that do not fit beside newer ones.
fn newest(records: &[Record<'_>], mut room: usize) -> Vec<bool> {
    let mut kept: Vec<bool> = Vec::with_capacity(records.len());
    for record in records.iter().rev() {
        let fits = record.bytes.len() <= room;
        room -= if fits { record.bytes.len() } else { 0 };
        kept.push(fits);
    }
    kept.reverse();
    kept
}

/// The records at the start of `bytes`, up to the first that is not whole.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_at_checked(RECORD)?;
        let number = |range| <[u8; 4]>::try_from(&head[range]).ok().map(u32::from_le_bytes);
        let (n, complement) = (number(0..4)?, number(4..8)?);
        let tokens = rest.get(..usize::try_from(n).ok()?.checked_mul(4)?)?;
        let checksum = fnv1a(tokens);
        if n != !complement || checksum.to_le_bytes() != head[8..] {
            return None;
        }
        let (record, rest) = bytes.split_at_checked(RECORD + tokens.len())?;
        bytes = rest;
        Some(Record { checksum, bytes: record.into() })
    })
}

/// What the user wrote is the user's alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// A number that no other file of this history has had.
fn fresh_number() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let parts = [since.as_nanos() as u64, u64::from(std::process::id()), COUNT.fetch_add(1, Ordering::Relaxed)];
    let bytes: Vec<u8> = parts.iter().flat_map(|part| part.to_le_bytes()).collect();
    fnv1a(&bytes).max(1)
}

const MAGIC: &[u8; 8] = b"ftnghis1";
const HEADER: usize = 32;
const RECORD: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn open(path: &Path) -> History {
        History::open(path, 5, LIMIT, 8).unwrap()
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in/a/new/history");
        (folder, path)
    }

    /// The texts of a file, by reading it alone.
    fn texts(path: &Path) -> Vec<Vec<Token>> {
        let bytes = fs::read(path).unwrap();
        records(&bytes[HEADER..]).map(|record| record.tokens()).collect()
    }

    fn after(history: &History, past: &[Token]) -> Vec<Option<Token>> {
        let mut found = Vec::new();
        history.search(past, past.len(), 100, &mut Walk::default(), &mut found);
        found.iter().map(|o| history.token(o.end + 1)).collect()
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let (_folder, path) = folder();
        let mut first = open(&path);
        first.append(&[1, 2, 3]).unwrap();
        first.append(&[]).unwrap();
        assert_eq!(after(&first, &[2, 1]), [Some(3)]);
        let mut second = open(&path);
        assert_eq!(after(&second, &[2, 1]), [Some(3)]);
        second.append(&[1, 2, 4]).unwrap();
        second.append(&[1, 2, 4]).unwrap();
        first.append(&[9]).unwrap();
        assert_eq!(after(&first, &[2, 1]), [Some(4), Some(3)], "the other's text is learnt of, newest first");
        assert_eq!(texts(&path), [vec![1, 2, 3], vec![1, 2, 4], vec![9]], "each once");
        assert_eq!(after(&first, &[3, 2]), [None], "a text ends where it ends");
        assert!(after(&first, &[1, SEPARATOR]).is_empty());
    }

    #[test]
    fn another_tokenizer_or_file_is_refused() {
        let (_folder, path) = folder();
        open(&path).append(&[1, 2]).unwrap();
        let complaint = |tokenizer| match History::open(&path, tokenizer, LIMIT, 8) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(complaint(6).contains("another tokenizer"), "{}", complaint(6));
        assert_eq!(complaint(0), "");
        fs::write(&path, "something else, which must not be lost").unwrap();
        assert!(complaint(5).contains("no history"));
        assert_eq!(fs::read(&path).unwrap(), b"something else, which must not be lost");
        fs::write(&path, "").unwrap();
        assert!(complaint(5).contains("no history"));
    }

    #[test]
    fn a_torn_record_is_ignored_and_cut_off() {
        let (_folder, path) = folder();
        let mut history = open(&path);
        history.append(&[1, 2, 3]).unwrap();
        let whole = fs::read(&path).unwrap();
        let torn = Record::of(&[4, 5, 6, 7]).bytes.into_owned();
        for cut in 0..torn.len() {
            fs::write(&path, [&whole[..], &torn[..cut]].concat()).unwrap();
            let mut other = open(&path);
            assert_eq!(after(&other, &[2, 1]), [Some(3)]);
            assert!(after(&other, &[5]).is_empty());
            other.append(&[8, 9]).unwrap();
            assert_eq!(texts(&path), [vec![1, 2, 3], vec![8, 9]], "cut at {cut}");
        }
        // One who had it open before sees what was appended in the place of the torn one.
        history.append(&[10]).unwrap();
        assert_eq!(after(&history, &[8]), [Some(9)]);
        // And one whose file was made shorter by someone else starts over.
        fs::write(&path, &whole).unwrap();
        history.append(&[11, 12]).unwrap();
        assert_eq!(texts(&path), [vec![1, 2, 3], vec![11, 12]]);
        assert!(after(&history, &[8]).is_empty());
    }

    #[test]
    fn past_its_limit_the_newer_half_is_kept() {
        let (folder, path) = folder();
        let mut history = History::open(&path, 5, 1_000, 8).unwrap();
        let mut other = History::open(&path, 5, 1_000, 8).unwrap();
        let mut old = File::open(&path).unwrap();
        for i in 0..600u32 {
            history.append(&[i, i + 1, i + 2]).unwrap();
            let len = fs::metadata(&path).unwrap().len();
            assert!(len <= 4_000 + 32 + 28, "{len}");
        }
        let kept = texts(&path);
        assert!(kept.len() > 60 && kept.last() == Some(&vec![599, 600, 601]));
        assert!(kept.windows(2).all(|pair| pair[0][0] + 1 == pair[1][0]), "without gaps");
        assert!(history.n_tokens() <= 1_100, "what is indexed is capped as well");
        assert_eq!(fs::read_dir(folder.path().join("in/a/new")).unwrap().count(), 2, "the history and its lock");
        // Another that knew the first file goes on with the last, and the first was never made shorter.
        other.append(&[5_000, 1]).unwrap();
        assert_eq!(texts(&path).last(), Some(&vec![5_000, 1]));
        assert_eq!(after(&other, &[599]), after(&history, &[599]));
        let mut bytes = Vec::new();
        old.read_to_end(&mut bytes).unwrap();
        assert!(records(&bytes[HEADER..]).count() > 100);
        // A text longer than the limit is not kept, and does no harm.
        history.append(&(0..5_000).collect::<Vec<_>>()).unwrap();
        assert!(texts(&path).len() > 50 && texts(&path).iter().all(|text| text.len() < 4));
        history.append(&[1, 2]).unwrap();
        assert_eq!(texts(&path).last(), Some(&vec![1, 2]));
        // One of more than half of it is, and so is another that comes after.
        for first in [10_000, 20_000] {
            let long: Vec<Token> = (first..first + 700).collect();
            history.append(&long).unwrap();
            assert_eq!(texts(&path).last(), Some(&long));
            assert!(fs::metadata(&path).unwrap().len() <= 4_000 + 32);
        }
        let smaller = History::open(&path, 5, 500, 8).unwrap();
        assert!(smaller.n_tokens() <= 501, "a smaller limit holds at once: {}", smaller.n_tokens());
    }

    #[test]
    fn many_append_at_once() {
        const N: u32 = 25;
        let (_folder, path) = folder();
        let text = |who: u32, i: u32| -> Vec<Token> { (0..10 + i % 7).map(|j| who * 10_000 + i * 20 + j).collect() };
        let one = |who: u32| {
            let mut history = open(&path);
            (0..N).for_each(|i| history.append(&text(who, i)).unwrap());
            history
        };
        let mut last = std::thread::scope(|scope| {
            let all: Vec<_> = (1..9).map(|who| scope.spawn(move || one(who))).collect();
            all.into_iter().map(|one| one.join().unwrap()).next_back().unwrap()
        });
        let mut found = texts(&path);
        assert_eq!(found.len(), 8 * N as usize);
        last.append(&[1]).unwrap();
        for i in 0..N {
            for who in 1..9 {
                let text = text(who, i);
                assert_eq!(after(&last, &[text[0]]), [Some(text[1])]);
                let at = found.iter().position(|other| *other == text).unwrap();
                found.swap_remove(at);
            }
        }
        assert!(found.is_empty());
    }

    #[test]
    fn many_append_and_compact_at_once() {
        let (_folder, path) = folder();
        let text = |who: u32, i: u32| -> Vec<Token> { (0..20).map(|j| who * 10_000 + i * 20 + j).collect() };
        std::thread::scope(|scope| {
            for who in 1..5 {
                let path = &path;
                scope.spawn(move || {
                    let mut history = History::open(path, 5, 1_000, 8).unwrap();
                    (0..100).for_each(|i| history.append(&text(who, i)).unwrap());
                });
            }
        });
        let found = texts(&path);
        assert!(found.len() > 15, "{}", found.len());
        let sizes = records(&fs::read(&path).unwrap()[HEADER..]).map(|r| r.bytes.len()).sum::<usize>();
        assert_eq!(sizes + HEADER, fs::metadata(&path).unwrap().len() as usize, "no byte is torn");
        for kept in found {
            let (who, i) = (kept[0] / 10_000, kept[0] % 10_000 / 20);
            assert_eq!(kept, text(who, i));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damage_never_panics(
            lens in prop::collection::vec(0usize..20, 1..6),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..9),
        ) {
            let (_folder, path) = folder();
            let mut history = open(&path);
            let texts: Vec<Vec<Token>> = lens.iter().map(|&len| (0..len as u32).map(|i| i + len as u32).collect()).collect();
            texts.iter().for_each(|text| history.append(text).unwrap());
            let mut bytes = fs::read(&path).unwrap();
            let n = bytes.len();
            flips.iter().for_each(|(at, flip)| bytes[at.index(n)] ^= flip);
            fs::write(&path, bytes).unwrap();
            if let Ok(mut history) = History::open(&path, 5, LIMIT, 8) {
                history.append(&[7_000, 7_001]).unwrap();
                prop_assert_eq!(after(&open(&path), &[7_000]), [Some(7_001)]);
                prop_assert!(self::texts(&path).iter().all(|text| text[0] == 7_000 || texts.contains(text)));
            }
            // Whoever has it open already notices as well.
            let _ = history.append(&[7_002]);
        }
    }
}
