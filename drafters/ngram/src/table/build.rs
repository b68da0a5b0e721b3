//! Writing a [`Table`](super::Table): from documents to a sorted file, in bounded memory.
//!
//! The tokens are written first. Then they are read again, as often as memory demands: each pass collects the places
//! of the next few last tokens, sorts them and appends them. A last token with more places than fit is divided by the
//! token before it, and so on, until all [`DEPTH`] tokens agree; such places need no sorting. So no sorted runs are
//! kept on disk, and what is written is the table alone: 9 bytes per token and 4 per token of the vocabulary.
//!
//! The file appears under its name only when it is complete; a build that fails, is cancelled or is killed leaves
//! whatever stood there.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::{ControlFlow, Range};
use std::path::Path;

use foretoken_drafter::Token;
use tempfile::NamedTempFile;

use super::{sign, Header, DEPTH, HEADER, SEPARATOR, SIGN_EVERY};

/// How to build a table.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// The tokenizer's fingerprint; 0: unknown.
    pub tokenizer: u64,
    /// How much memory the places being sorted may take, in bytes; at least 1 MiB is used. Counts of 8 bytes per token
    /// of the vocabulary and the document at hand come on top.
    pub memory: usize,
}

impl Default for Build {
    fn default() -> Build {
        Build { tokenizer: 0, memory: 1 << 30 }
    }
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many tokens were read.
    Read(u64),
    /// So many places of all were sorted.
    Sorted(u64, u64),
}

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Built {
    /// Tokens, without the separators between documents.
    pub tokens: u64,
    /// Documents with at least one token.
    pub documents: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// Why there is no table.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError<E> {
    /// A document could not be had.
    Document(E),
    /// The file could not be written or read again.
    Io(io::Error),
    /// The text has no two tokens in a row.
    Empty,
    /// More tokens than a table can hold: 2³² − 2, separators included.
    TooLong,
    /// A token beyond 2²⁴.
    Token(Token),
    /// The callback said so.
    Cancelled,
}

impl<E: fmt::Display> fmt::Display for BuildError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Document(error) => error.fmt(f),
            BuildError::Io(error) => error.fmt(f),
            BuildError::Empty => f.write_str("the text has no two tokens in a row; give more text"),
            BuildError::TooLong => f.write_str("the text has more than 2^32 tokens; make several tables of it"),
            BuildError::Token(token) => write!(f, "token {token} is no token of a vocabulary of at most 2^24"),
            BuildError::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for BuildError<E> {}

impl<E> From<io::Error> for BuildError<E> {
    fn from(error: io::Error) -> BuildError<E> {
        BuildError::Io(error)
    }
}

impl Build {
    /// Write a table of `documents` to `out`. No match will go across two of them. `progress` is called now and
    /// then and may end the build.
    ///
    /// # Errors
    /// A document is an error, there is too little or too much text, or a file cannot be written; `out` is as before.
    pub fn write<E>(
        &self,
        documents: impl IntoIterator<Item = Result<Vec<Token>, E>>,
        out: &Path,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Built, BuildError<E>> {
        let mut file = beside(out)?;
        let text = write_tokens(documents, &mut file, progress)?;
        let header = Header {
            tokenizer: self.tokenizer,
            n_tokens: text.n_tokens,
            n_places: text.n_places,
            n_vocab: text.counts.len() as u64,
        };
        let layout = header.layout().ok_or(BuildError::TooLong)?;
        let at = |offset: usize| -> io::Result<BufWriter<File>> {
            let mut file = file.reopen()?;
            file.seek(SeekFrom::Start(offset as u64))?;
            Ok(BufWriter::with_capacity(BUFFER, file))
        };
        write_first(&text.counts, at(layout.first.start)?)?;
        let mut sort = Sort {
            tokens: Tokens { file: file.reopen()?, n: text.n_tokens },
            n_vocab: text.counts.len(),
            room: (self.memory.max(MIN_MEMORY) / size_of::<Place>()) as u64,
            collected: Vec::new(),
            places: at(layout.places.start)?,
            signs: at(layout.signs.start)?,
            n_sorted: 0,
            n_places: text.n_places,
            progress,
        };
        sort.divide(&[], &text.counts)?;
        sort.places.flush()?;
        sort.signs.flush()?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header.write())?;
        file.as_file().sync_all()?;
        file.persist(out).map_err(|e| e.error)?;
        Ok(Built { tokens: text.n_words, documents: text.n_documents, bytes: layout.signs.end as u64 })
    }
}

/// An empty temporary file in the folder of `out`, gone when dropped. A table is no secret: all may read it.
fn beside(out: &Path) -> io::Result<NamedTempFile> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    match std::fs::metadata(out) {
        Ok(there) if there.is_dir() => return wrong("it is a directory; name the file to write in it"),
        // It would be replaced by the table.
        Ok(there) if !there.is_file() => return wrong("it is a device, a pipe or a socket; name a regular file"),
        _ if !folder.is_dir() => return wrong("its folder does not exist; create it first"),
        _ => {}
    }
    let prefix = format!(".{}.", out.file_name().unwrap_or_default().to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".part");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask
    builder.tempfile_in(folder)
}

/// What the first pass counts.
#[derive(Default)]
struct Counted {
    n_tokens: u64,
    n_words: u64,
    n_documents: u64,
    n_places: u64,
    /// By last token, how many places.
    counts: Vec<u64>,
}

fn write_tokens<E>(
    documents: impl IntoIterator<Item = Result<Vec<Token>, E>>,
    file: &mut NamedTempFile,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Counted, BuildError<E>> {
    let mut counted = Counted { n_tokens: 1, ..Counted::default() };
    let mut out = BufWriter::with_capacity(BUFFER, file.as_file_mut());
    out.write_all(&[0; HEADER])?;
    out.write_all(&SEPARATOR.to_le_bytes())?;
    let mut said = 0;
    for document in documents {
        let document = document.map_err(BuildError::Document)?;
        let Some((_, before_last)) = document.split_last() else { continue };
        if let Some(&token) = document.iter().find(|&&token| token >= MAX_VOCAB) {
            return Err(BuildError::Token(token));
        }
        counted.n_tokens += document.len() as u64 + 1;
        if counted.n_tokens >= u64::from(u32::MAX) {
            return Err(BuildError::TooLong);
        }
        let vocab = document.iter().max().map_or(0, |&token| token as usize + 1);
        counted.counts.resize(counted.counts.len().max(vocab), 0);
        before_last.iter().for_each(|&token| counted.counts[token as usize] += 1);
        counted.n_places += before_last.len() as u64;
        counted.n_words += document.len() as u64;
        counted.n_documents += 1;
        for token in document.iter().chain([&SEPARATOR]) {
            out.write_all(&token.to_le_bytes())?;
        }
        if counted.n_words - said >= OFTEN {
            said = counted.n_words;
            say(progress, Progress::Read(said))?;
        }
    }
    out.flush()?;
    match counted.n_places {
        0 => Err(BuildError::Empty),
        _ => Ok(counted),
    }
}

fn write_first(counts: &[u64], mut out: BufWriter<File>) -> io::Result<()> {
    let mut first = 0u32;
    out.write_all(&first.to_le_bytes())?;
    for &count in counts {
        // Places are fewer than tokens, and those are fewer than 2^32.
        first = first.saturating_add(count as u32);
        out.write_all(&first.to_le_bytes())?;
    }
    out.flush()
}

/// The tokens up to a place, read backwards, then the place: sorting these sorts the places.
type Place = ([Token; DEPTH], u32);

/// The passes over the tokens.
struct Sort<'a> {
    tokens: Tokens,
    /// One more than the largest token; in counts, the place of the separator.
    n_vocab: usize,
    /// How many places fit in memory.
    room: u64,
    collected: Vec<Place>,
    places: BufWriter<File>,
    signs: BufWriter<File>,
    n_sorted: u64,
    n_places: u64,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
}

impl Sort<'_> {
    /// Append the places whose past begins with `prefix`, in order. `counts` says how many have each token next.
    fn divide<E>(&mut self, prefix: &[Token], counts: &[u64]) -> Result<(), BuildError<E>> {
        let mut start = 0;
        while start < counts.len() {
            let mut end = start;
            let mut n = 0;
            while end < counts.len() && n + counts[end] <= self.room {
                n += counts[end];
                end += 1;
            }
            if n > 0 {
                self.collect(prefix, start..end)?;
            } else if end == start {
                let token = if start == self.n_vocab { SEPARATOR } else { start as Token };
                self.subdivide(&[prefix, &[token]].concat())?;
                end += 1;
            }
            start = end;
        }
        Ok(())
    }

    /// The same for a prefix with more places than fit.
    fn subdivide<E>(&mut self, prefix: &[Token]) -> Result<(), BuildError<E>> {
        if prefix.len() == DEPTH || prefix.last() == Some(&SEPARATOR) {
            return self.stream(prefix);
        }
        let mut counts = vec![0u64; self.n_vocab + 1];
        let n_vocab = self.n_vocab;
        self.tokens.scan(last(prefix), |(past, _)| {
            if past.starts_with(prefix) {
                counts[(past[prefix.len()] as usize).min(n_vocab)] += 1;
            }
            Ok(())
        })?;
        self.divide(prefix, &counts)
    }

    /// Append, sorted, the places whose past begins with `prefix` and goes on with a token in `next`.
    fn collect<E>(&mut self, prefix: &[Token], next: Range<usize>) -> Result<(), BuildError<E>> {
        let mut collected = std::mem::take(&mut self.collected);
        collected.clear();
        let n_vocab = self.n_vocab;
        let wanted = |past: &[Token; DEPTH]| {
            past.starts_with(prefix) && next.contains(&(past[prefix.len()] as usize).min(n_vocab))
        };
        let last = if prefix.is_empty() { next.start as Token..next.end as Token } else { last(prefix) };
        self.tokens.scan(last, |place| {
            if wanted(&place.0) {
                collected.push(place);
            }
            Ok(())
        })?;
        collected.sort_unstable();
        collected.iter().try_for_each(|place| self.append(place))?;
        self.collected = collected;
        say(self.progress, Progress::Sorted(self.n_sorted, self.n_places))
    }

    /// Append the places whose past begins with `prefix` and does not differ after it.
    fn stream<E>(&mut self, prefix: &[Token]) -> Result<(), BuildError<E>> {
        let Sort { tokens, places, signs, n_sorted, .. } = self;
        tokens.scan(last(prefix), |place| match place.0.starts_with(prefix) {
            true => append(places, signs, n_sorted, &place),
            false => Ok(()),
        })?;
        say(self.progress, Progress::Sorted(self.n_sorted, self.n_places))
    }

    fn append(&mut self, place: &Place) -> io::Result<()> {
        append(&mut self.places, &mut self.signs, &mut self.n_sorted, place)
    }
}

fn append(places: &mut impl Write, signs: &mut impl Write, n_sorted: &mut u64, place: &Place) -> io::Result<()> {
    places.write_all(&place.1.to_le_bytes())?;
    if n_sorted.is_multiple_of(SIGN_EVERY as u64) {
        signs.write_all(&sign(&place.0[1..]).to_le_bytes())?;
    }
    *n_sorted += 1;
    Ok(())
}

/// The last token of places with this prefix, as a range.
fn last(prefix: &[Token]) -> Range<Token> {
    prefix.first().map_or(0..0, |&token| token..token.saturating_add(1))
}

/// The tokens as written, to be read from the start again and again.
struct Tokens {
    file: File,
    n: u64,
}

impl Tokens {
    /// Visit every place whose last token is in `last`, in the order of the text.
    fn scan(&mut self, last: Range<Token>, mut visit: impl FnMut(Place) -> io::Result<()>) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(HEADER as u64))?;
        let mut bytes = vec![0; BUFFER];
        let mut window: Vec<Token> = Vec::new();
        // Index in the text of the first token of the window, and in the window of the next place to look at.
        let (mut begin, mut next) = (0u64, 0usize);
        let mut left = self.n;
        while left > 0 {
            let chunk = &mut bytes[..(left * 4).min(BUFFER as u64) as usize];
            self.file.read_exact(chunk)?;
            left -= chunk.len() as u64 / 4;
            let forget = next.saturating_sub(DEPTH);
            window.drain(..forget);
            begin += forget as u64;
            next -= forget;
            window.extend(chunk.chunks_exact(4).map(|b| Token::from_le_bytes([b[0], b[1], b[2], b[3]])));
            for (i, pair) in window.windows(2).enumerate().skip(next) {
                if last.contains(&pair[0]) && pair[1] != SEPARATOR {
                    let mut past = [SEPARATOR; DEPTH];
                    let before = window[..=i].iter().rev().take_while(|&&token| token != SEPARATOR);
                    past.iter_mut().zip(before).for_each(|(to, &from)| *to = from);
                    visit((past, (begin + i as u64) as u32))?;
                }
            }
            next = window.len() - 1;
        }
        Ok(())
    }
}

fn say<E>(progress: &mut dyn FnMut(Progress) -> ControlFlow<()>, how_far: Progress) -> Result<(), BuildError<E>> {
    match progress(how_far) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(BuildError::Cancelled),
    }
}

const MIN_MEMORY: usize = 1 << 20;
const BUFFER: usize = 1 << 20;
const MAX_VOCAB: Token = 1 << 24;
const OFTEN: u64 = 1 << 16;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::super::Table;
    use super::*;
    use crate::suffixes::Occurrence;

    type Documents = Vec<Vec<Token>>;

    const GO_ON: fn(Progress) -> ControlFlow<()> = |_| ControlFlow::Continue(());

    fn ok(documents: &[Vec<Token>]) -> impl Iterator<Item = Result<Vec<Token>, Infallible>> + '_ {
        documents.iter().cloned().map(Ok)
    }

    fn built(documents: &[Vec<Token>], memory: usize) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("table");
        Build { tokenizer: 5, memory }.write(ok(documents), &out, &mut { GO_ON }).unwrap();
        std::fs::read(out).unwrap()
    }

    fn table(documents: &[Vec<Token>]) -> Table {
        Table::open(Box::new(built(documents, 0)), 5).unwrap()
    }

    fn search(table: &Table, past: &[Token], least: usize, most: usize) -> Vec<Occurrence> {
        let mut found = Vec::new();
        table.search(past, least, most, &mut found);
        found
    }

    /// Every place with what it shares with `past`, by looking at all of them.
    fn oracle(documents: &[Vec<Token>], past: &[Token]) -> Vec<Occurrence> {
        let mut all = Vec::new();
        let mut begin = 1;
        for document in documents.iter().filter(|document| !document.is_empty()) {
            for end in 0..document.len() - 1 {
                let before = document[..=end].iter().rev().zip(past).take(DEPTH);
                let len = before.take_while(|(a, b)| a == b).count() as u32;
                all.push(Occurrence { end: begin + end as u32, len });
            }
            begin += document.len() as u32 + 1;
        }
        all.retain(|occurrence| occurrence.len > 0);
        all.sort_by_key(|occurrence| occurrence.end);
        all
    }

    fn by_end(mut found: Vec<Occurrence>) -> Vec<Occurrence> {
        found.sort_by_key(|occurrence| occurrence.end);
        found
    }

    fn documents() -> impl Strategy<Value = Documents> {
        prop::collection::vec(prop::collection::vec(0u32..3, 0..60), 1..5)
            .prop_filter("a place", |documents| documents.iter().any(|document| document.len() > 1))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn all_places_are_found_longest_first(documents in documents(), past in prop::collection::vec(0u32..4, 0..30)) {
            let table = table(&documents);
            let expected = oracle(&documents, &past);
            let found = search(&table, &past, 1, 1000);
            prop_assert!(found.is_sorted_by(|a, b| a.len >= b.len));
            prop_assert_eq!(by_end(found), expected.clone());
            for (least, most) in [(1, 3), (2, 4), (1, 16)] {
                let few = by_end(search(&table, &past, least, most));
                let lens = |found: &[Occurrence]| {
                    let mut lens: Vec<u32> = found.iter().map(|o| o.len).filter(|&len| len >= least as u32).collect();
                    lens.sort_by(|a, b| b.cmp(a));
                    lens.truncate(most);
                    lens
                };
                prop_assert_eq!(lens(&few), lens(&expected));
                prop_assert!(few.windows(2).all(|pair| pair[0].end < pair[1].end), "each once");
                prop_assert!(few.iter().all(|o| expected.contains(o)));
            }
        }

        #[test]
        fn what_followed_is_there(documents in documents()) {
            let table = table(&documents);
            let mut at = 1;
            for document in documents.iter().filter(|document| !document.is_empty()) {
                for &token in document {
                    prop_assert_eq!(table.token(at), Some(token));
                    at += 1;
                }
                prop_assert_eq!(table.token(at), None);
                at += 1;
            }
            prop_assert_eq!(table.token(at), None);
        }

        #[test]
        fn a_damaged_table_never_panics(
            documents in documents(),
            flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..20),
            cut in prop::option::of(any::<prop::sample::Index>()),
            header in any::<bool>(),
            past in prop::collection::vec(0u32..4, 0..30),
        ) {
            let mut bytes = built(&documents, 0);
            // Half the time the header stays as it is, so that what comes after is read.
            let spared = if header { 0 } else { HEADER };
            for (index, flip) in flips {
                let at = spared + index.index(bytes.len() - spared);
                bytes[at] ^= flip;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
                prop_assert!(Table::open(Box::new(bytes), 5).is_err());
            } else if let Ok(table) = Table::open(Box::new(bytes), 5) {
                for occurrence in search(&table, &past, 1, 16) {
                    table.token(occurrence.end.wrapping_add(1));
                }
                table.token(u32::MAX);
            }
        }
    }

    #[test]
    fn little_memory_gives_the_same_table() {
        // 100,000 tokens, one of them in half of all places, and a run that agrees all the way back.
        let mut seed = 1u32;
        let mut dice = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 16
        };
        let mut documents: Documents =
            (0..8).map(|_| (0..8_000).map(|_| dice() % 200 * (dice() % 2)).collect()).collect();
        documents.push(vec![0; 36_000]);
        documents.extend((0..20_000).map(|_| vec![0, 0]));
        let plenty = built(&documents, 1 << 30);
        assert!(Table::open(Box::new(plenty.clone()), 5).is_ok());
        assert!(built(&documents, 0) == plenty);
        let places = documents.iter().map(|document| document.len() - 1).sum::<usize>();
        assert!(places > 4 * MIN_MEMORY / size_of::<Place>(), "{places} places would fit");
    }

    #[test]
    fn of_many_places_a_sample_is_taken() {
        // After 7 comes 1 in the first half and 2 in the second; both must be seen.
        let documents: Documents = (0..2_000).map(|i| vec![7, 1 + u32::from(i >= 1_000)]).collect();
        let table = table(&documents);
        let next = search(&table, &[7], 1, 16).iter().map(|o| table.token(o.end + 1)).collect::<Vec<_>>();
        let ones = next.iter().filter(|&&token| token == Some(1)).count();
        assert_eq!(next.len(), 16);
        assert!((4..=12).contains(&ones), "{ones} of 16");
    }

    #[test]
    fn a_table_of_another_tokenizer_or_version_is_refused() {
        let bytes = built(&[vec![1, 2, 3]], 0);
        let complaint = |bytes: &[u8], tokenizer| match Table::open(Box::new(bytes.to_vec()), tokenizer) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert_eq!(complaint(&bytes, 5), "");
        assert_eq!(complaint(&bytes, 0), "", "unknown goes with any");
        assert!(complaint(&bytes, 6).contains("another tokenizer"));
        assert!(complaint(b"GGUF and what follows", 5).contains("no n-gram table"));
        assert!(complaint(b"", 5).contains("no n-gram table"));
        let mut other = bytes.clone();
        other[7] = b'9';
        assert!(complaint(&other, 5).contains("another version"));
        let mut other = bytes.clone();
        other[16] ^= 1;
        assert!(complaint(&other, 5).contains("header is damaged"));
        assert!(complaint(&bytes[..bytes.len() - 1], 5).contains("bytes and should have"));
    }

    #[test]
    fn a_build_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("table");
        std::fs::write(&out, "before").unwrap();
        let build = Build::default();
        let broken = [Ok(vec![1, 2]), Err("no more")];
        assert!(matches!(build.write(broken, &out, &mut { GO_ON }), Err(BuildError::Document("no more"))));
        let mut cancel = |_| ControlFlow::Break(());
        assert!(matches!(build.write(ok(&[vec![1, 2]]), &out, &mut cancel), Err(BuildError::Cancelled)));
        assert!(matches!(build.write(ok(&[vec![1], vec![]]), &out, &mut { GO_ON }), Err(BuildError::Empty)));
        assert!(matches!(build.write(ok(&[vec![1 << 24, 1]]), &out, &mut { GO_ON }), Err(BuildError::Token(_))));
        let nowhere = folder.path().join("no/such/folder");
        assert!(matches!(build.write(ok(&[vec![1, 2]]), &nowhere, &mut { GO_ON }), Err(BuildError::Io(_))));
        assert_eq!(std::fs::read(&out).unwrap(), b"before");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left");
        let built = build.write(ok(&[vec![1, 2], vec![3, 4, 5]]), &out, &mut { GO_ON }).unwrap();
        assert_eq!((built.tokens, built.documents), (5, 2));
        assert_eq!(std::fs::metadata(&out).unwrap().len(), built.bytes);
    }
}
