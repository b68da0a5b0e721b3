//! A table of texts, read in place: where did these tokens occur before, and what followed them?
//!
//! It answers as [`SuffixIndex`](crate::SuffixIndex) does, for text that was prepared ahead and may be larger than
//! memory. The drafter asks it; [`build`] writes it; it writes nothing and copies nothing. Opening reads the header
//! alone, and a lookup touches a few dozen places, whatever the size. Only the header is checked when it is opened:
//! every later number is distrusted where it is read, and a damaged table makes poor guesses or none.
//!
//! # The file, version 1
//!
//! Little-endian throughout; n, m and v are the header's numbers.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | magic, `ftngram1` |
//! | 8 | fingerprint of the tokenizer; 0: unknown |
//! | 8 | n, the number of stored tokens, separators included |
//! | 8 | m, the number of places |
//! | 8 | v, one more than the largest token |
//! | 8 | FNV-1a of the 40 bytes before |
//! | 16 | zero |
//! | 4 n | the tokens: a separator (2³² − 1) before each document and at the end |
//! | 4 (v + 1) | the first place of each last token |
//! | 4 m | the places, sorted |
//! | 16 ⌈m/16⌉ | signposts |
//!
//! A *place* is the index of a token that another of its document follows. Places are sorted by the tokens up to them,
//! read backwards, [`DEPTH`] deep, a separator being greater than all and ending the comparison; equals by index. So
//! those that continue the same tokens are neighbours. The *signpost* of every 16th place holds the four tokens before
//! its own as one number, the nearest highest, so that most of a binary search stays within a dense array.

use std::ops::Range;

use foretoken_drafter::{Bytes, DraftError, Token};

use crate::suffixes::Occurrence;

pub mod build;
pub mod text;

pub use build::Build;

/// How many tokens back places are sorted, hence the longest match.
pub const DEPTH: usize = 16;

/// A table, open for lookups.
pub struct Table {
    bytes: Box<dyn Bytes>,
    layout: Layout,
}

impl Table {
    /// Reads the header of a table for the tokenizer of this fingerprint; 0 goes with any.
    ///
    /// # Errors
    /// It is no table, it is cut short, or it was made for another tokenizer.
    pub fn open(bytes: Box<dyn Bytes>, tokenizer: u64) -> Result<Table, DraftError> {
        let (header, layout) = Header::read((*bytes).as_ref())?;
        if header.tokenizer != tokenizer && header.tokenizer != 0 && tokenizer != 0 {
            return Err(DraftError::settings(
                "it was made for another tokenizer; make it anew with this target: foretoken prepare ngram",
            ));
        }
        Ok(Table { bytes, layout })
    }

    /// How many tokens it holds, the separators between documents included.
    pub fn n_tokens(&self) -> usize {
        self.layout.tokens.len() / 4
    }

    /// The token at `index`; `None` at the end of a document.
    pub fn token(&self, index: u32) -> Option<Token> {
        let token = number(self.section(&self.layout.tokens), index as usize)?;
        (token != SEPARATOR).then_some(token)
    }

    /// Places that continue `past`, longest match first: up to `most` of at least `least` tokens, appended to `found`.
    /// Of more places with the same match some are taken, spread evenly over the nearest 65,536 on either
    /// side, so that what follows is a sample of what followed them all.
    ///
    /// `past` is read backwards: `past[0]` is the token next to the place asked about.
    pub fn search(&self, past: &[Token], least: usize, most: usize, found: &mut Vec<Occurrence>) {
        let past = &past[..past.len().min(DEPTH)];
        let past = &past[..past.iter().position(|&token| token == SEPARATOR).unwrap_or(past.len())];
        let Some(bucket) = past.first().and_then(|&last| self.bucket(last)) else { return };
        let query = Query { table: self, past, bucket };
        let at = query.insertion_point();
        // What is still to be looked at lies outside `inner`; matches get shorter outwards.
        let mut inner = at..at;
        let mut wanted = most;
        while wanted > 0 {
            let (below, above) = (query.below(inner.start), query.above(inner.end));
            let len = below.max(above);
            if len < least.max(1) {
                return;
            }
            let lower = if below == len { query.extent(inner.start, len, wanted, Side::Below) } else { 0 };
            let upper = if above == len { query.extent(inner.end, len, wanted, Side::Above) } else { 0 };
            let take = wanted.min(lower + upper);
            for i in 0..take {
                let nth = i * (lower + upper) / take;
                let place = if nth < lower { inner.start - 1 - nth } else { inner.end + (nth - lower) };
                // Not compared again: it lies between places that agree. Only in a damaged table might it not.
                found.extend(query.place(place).map(|end| Occurrence { end, len: len as u32 }));
            }
            wanted -= take;
            inner = inner.start - lower..inner.end + upper;
        }
    }

    /// The places of the last token `last`.
    fn bucket(&self, last: Token) -> Option<Range<usize>> {
        let first = self.section(&self.layout.first);
        let start = number(first, last as usize)? as usize;
        let end = number(first, (last as usize).checked_add(1)?)? as usize;
        (start < end && end <= self.layout.places.len() / 4).then_some(start..end)
    }

    fn section(&self, range: &Range<usize>) -> &[u8] {
        (*self.bytes).as_ref().get(range.clone()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("n_tokens", &self.n_tokens()).finish_non_exhaustive()
    }
}

/// One lookup, within the places of its last token.
struct Query<'a> {
    table: &'a Table,
    past: &'a [Token],
    bucket: Range<usize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Below,
    Above,
}

impl Query<'_> {
    /// The first place of the bucket that is greater than `past`; those that agree throughout are not.
    fn insertion_point(&self) -> usize {
        let Range { mut start, mut end } = self.narrowed();
        while start < end {
            let middle = start + (end - start) / 2;
            match self.place(middle).is_some_and(|place| self.compare(place).1 == Side::Above) {
                true => end = middle,
                false => start = middle + 1,
            }
        }
        start
    }

    /// The part of the bucket where the signposts say that the insertion point is.
    fn narrowed(&self) -> Range<usize> {
        let signs = self.table.section(&self.table.layout.signs);
        // Only signposts within the bucket, for the others belong to other last tokens.
        let (first, last) = (self.bucket.start.div_ceil(SIGN_EVERY), self.bucket.end.div_ceil(SIGN_EVERY));
        let wanted = sign(&self.past[1..]);
        let at = |i: usize| {
            let bytes = signs.get(i * 16..i * 16 + 16).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(u128::MAX, u128::from_le_bytes)
        };
        let less = partition_point(first..last, |i| at(i) < wanted);
        let not_greater = partition_point(less..last, |i| at(i) <= wanted);
        let start = if less > first { (less - 1) * SIGN_EVERY } else { self.bucket.start };
        start..(not_greater * SIGN_EVERY).min(self.bucket.end)
    }

    /// How many tokens the place below `at` agrees in; 0 if there is none.
    fn below(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |at| self.agreement(at))
    }

    /// How many tokens the place at `at` agrees in.
    fn above(&self, at: usize) -> usize {
        self.agreement(at)
    }

    fn agreement(&self, at: usize) -> usize {
        match self.bucket.contains(&at) {
            true => self.place(at).map_or(0, |place| self.compare(place).0),
            false => 0,
        }
    }

    /// How many places on one side of `from`, the next one among them, agree in `len` tokens: exact up to `exact`,
    /// beyond that at most a quarter too few, and [`REACH`] at most.
    fn extent(&self, from: usize, len: usize, exact: usize, side: Side) -> usize {
        let agrees = |n: usize| match side {
            Side::Below => from >= n && self.agreement(from - n) >= len,
            Side::Above => self.agreement(from + n - 1) >= len,
        };
        let mut known = 1;
        while known < REACH && agrees(2 * known) {
            known *= 2;
        }
        let mut not = if known < REACH { 2 * known } else { known };
        while not - known > if known <= exact { 1 } else { (known / 4).max(1) } {
            let middle = known + (not - known) / 2;
            *if agrees(middle) { &mut known } else { &mut not } = middle;
        }
        known
    }

    fn place(&self, i: usize) -> Option<u32> {
        number(self.table.section(&self.table.layout.places), i)
    }

    /// How many tokens up to `place` agree with `past`, and on which side of it `place` stands.
    fn compare(&self, place: u32) -> (usize, Side) {
        let tokens = self.table.section(&self.table.layout.tokens);
        let end = (place as usize + 1) * 4;
        let before = tokens.get(end.saturating_sub(4 * DEPTH)..end).unwrap_or_default();
        let before = before.rchunks_exact(4).map(|token| number(token, 0).unwrap_or(SEPARATOR));
        let mut len = 0;
        for (there, &here) in before.zip(self.past) {
            if there != here {
                return (len, if there > here { Side::Above } else { Side::Below });
            }
            len += 1;
        }
        (len, Side::Below)
    }
}

/// The numbers at the start of the file.
struct Header {
    tokenizer: u64,
    n_tokens: u64,
    n_places: u64,
    n_vocab: u64,
}

/// Where the sections are, in bytes.
struct Layout {
    tokens: Range<usize>,
    first: Range<usize>,
    places: Range<usize>,
    signs: Range<usize>,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<(Header, Layout), DraftError> {
        if !bytes.starts_with(MAGIC) {
            let reason = match bytes.starts_with(&MAGIC[..7]) {
                true => "it is an n-gram table of another version; make it anew with this one: foretoken prepare ngram",
                false => "it is no n-gram table; make one with foretoken prepare ngram",
            };
            return Err(DraftError::settings(reason));
        }
        let damaged = || DraftError::settings("its header is damaged; make it anew with foretoken prepare ngram");
        let header = bytes.get(..HEADER).ok_or_else(damaged)?;
        let word = |i: usize| {
            let bytes = header.get(8 * i..8 * i + 8).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_le_bytes)
        };
        if word(5) != fnv1a(&header[..40]) {
            return Err(damaged());
        }
        let header = Header { tokenizer: word(1), n_tokens: word(2), n_places: word(3), n_vocab: word(4) };
        let layout = header.layout().ok_or_else(damaged)?;
        if layout.signs.end != bytes.len() {
            let (is, should) = (bytes.len(), layout.signs.end);
            return Err(DraftError::settings(format!(
                "it has {is} bytes and should have {should}; make it anew with foretoken prepare ngram"
            )));
        }
        Ok((header, layout))
    }

    fn write(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        let words = [self.tokenizer, self.n_tokens, self.n_places, self.n_vocab];
        for (bytes, word) in header[8..40].chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let sum = fnv1a(&header[..40]);
        header[40..48].copy_from_slice(&sum.to_le_bytes());
        header
    }

    fn layout(&self) -> Option<Layout> {
        let mut at = HEADER;
        let mut section = |n: u64, size: usize| {
            let start = at;
            at = usize::try_from(n).ok()?.checked_mul(size)?.checked_add(start)?;
            Some(start..at)
        };
        Some(Layout {
            tokens: section(self.n_tokens, 4)?,
            first: section(self.n_vocab.checked_add(1)?, 4)?,
            places: section(self.n_places, 4)?,
            signs: section(self.n_places.div_ceil(SIGN_EVERY as u64), 16)?,
        })
    }
}

/// The i-th little-endian number of four bytes.
fn number(bytes: &[u8], i: usize) -> Option<u32> {
    let start = i.checked_mul(4)?;
    let bytes = bytes.get(start..start.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

/// The first four of these tokens as one number; a missing one is greater than all.
fn sign(before: &[Token]) -> u128 {
    (0..4).fold(0, |sign, i| sign << 32 | u128::from(before.get(i).copied().unwrap_or(SEPARATOR)))
}

/// The first of `range` where `below` no longer holds.
fn partition_point(range: Range<usize>, below: impl Fn(usize) -> bool) -> usize {
    let Range { mut start, mut end } = range;
    while start < end {
        let middle = start + (end - start) / 2;
        match below(middle) {
            true => start = middle + 1,
            false => end = middle,
        }
    }
    start
}

/// FNV-1a, 64 bits.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

const MAGIC: &[u8; 8] = b"ftngram1";
const HEADER: usize = 64;
/// Stands between documents; no token.
pub(crate) const SEPARATOR: Token = Token::MAX;
const SIGN_EVERY: usize = 16;
/// Most places that are taken to agree on one side.
const REACH: usize = 1 << 16;
