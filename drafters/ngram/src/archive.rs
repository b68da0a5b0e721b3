//! Texts other than the one being written, as the drafter sees them: a table or the history, and how far each is
//! trusted. They are asked alike; only the history can be added to.

use foretoken_drafter::Token;

use crate::history::History;
use crate::predict::Trust;
use crate::suffixes::{Occurrence, Walk};
use crate::table::Table;

/// A source of occurrences besides the context.
pub struct Archive {
    /// Where the texts are.
    pub texts: Texts,
    /// Learnt from every draft, in whatever text: how good an archive is depends on it more than on the text.
    pub trust: Trust,
}

/// Where an archive's texts are.
pub enum Texts {
    /// In a table, read in place.
    Table(Table),
    /// In a file that grows, indexed in memory.
    History(History),
}

impl Archive {
    /// An archive of which nothing is known.
    pub fn new(texts: Texts) -> Archive {
        Archive { texts, trust: Trust::default() }
    }

    /// The token at `index`; `None` at the end of a text.
    pub fn token(&self, index: u32) -> Option<Token> {
        match &self.texts {
            Texts::Table(table) => table.token(index),
            Texts::History(history) => history.token(index),
        }
    }

    /// Places that continue `past`, which is read backwards, longest match first.
    pub fn search(&self, past: &[Token], least: usize, most: usize, walk: &mut Walk, found: &mut Vec<Occurrence>) {
        match &self.texts {
            Texts::Table(table) => table.search(past, least, most, found),
            Texts::History(history) => history.search(past, least, most, walk, found),
        }
    }

    /// Bytes on the heap. A table's bytes are its host's affair: mapped, they are the page cache's.
    pub fn heap_bytes(&self) -> usize {
        match &self.texts {
            Texts::Table(_) => 0,
            Texts::History(history) => history.heap_bytes(),
        }
    }
}
