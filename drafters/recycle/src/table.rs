//! What follows what: for each token the target's likeliest next ones, as of the last time it was scored.
//!
//! Pure storage, bounded by the vocabulary: an index of 4 bytes per token, and a row for each that was seen.

use foretoken_drafter::Token;

/// The successors of each token.
pub struct Table {
    n_vocab: usize,
    successors: usize,
    /// By token: its row, counted from 1; 0: none.
    index: Vec<u32>,
    /// Rows of `successors` entries, best first. A row that has fewer ends with [`NOTHING`].
    rows: Vec<(Token, f32)>,
}

const NOTHING: (Token, f32) = (Token::MAX, 0.0);

impl Table {
    /// An empty table of `successors` for each of `n_vocab` tokens.
    pub fn new(n_vocab: usize, successors: usize) -> Table {
        Table { n_vocab, successors, index: Vec::new(), rows: Vec::new() }
    }

    /// As it was in the beginning.
    pub fn clear(&mut self) {
        *self = Table::new(self.n_vocab, self.successors);
    }

    /// How many successors of a token are kept.
    pub fn successors(&self) -> usize {
        self.successors
    }

    /// The successors of `token`, best first, with their probabilities; empty if it was never scored.
    pub fn after(&self, token: Token) -> &[(Token, f32)] {
        let row = self.index.get(token as usize).map_or(0, |&row| row as usize);
        let Some(start) = row.checked_sub(1).map(|row| row * self.successors) else { return &[] };
        let row = self.rows.get(start..start + self.successors).unwrap_or_default();
        &row[..row.iter().position(|&entry| entry == NOTHING).unwrap_or(row.len())]
    }

    /// Replace the successors of `token` by the best of `top`; none leaves them as they are.
    pub fn keep(&mut self, token: Token, top: &[(Token, f32)]) {
        let at = token as usize;
        if top.is_empty() || at >= self.n_vocab {
            return;
        }
        if self.index.is_empty() {
            self.index = vec![0; self.n_vocab];
        }
        if self.index[at] == 0 {
            self.make_room();
            self.rows.extend((0..self.successors).map(|_| NOTHING));
            self.index[at] = (self.rows.len() / self.successors) as u32;
        }
        let start = (self.index[at] as usize - 1) * self.successors;
        let entries = top.iter().copied().chain(std::iter::repeat(NOTHING));
        for (entry, new) in self.rows[start..start + self.successors].iter_mut().zip(entries) {
            *entry = new;
        }
    }

    /// Room for an eighth more rows, and never for more than there are tokens.
    fn make_room(&mut self) {
        if self.rows.len() == self.rows.capacity() {
            let rows = self.rows.len() / self.successors;
            let more = (rows / 8 + 64).min(self.n_vocab.saturating_sub(rows));
            self.rows.reserve_exact(more * self.successors);
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.index.capacity() * size_of::<u32>() + self.rows.capacity() * size_of::<(Token, f32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_short_rows_stay_short() {
        let mut table = Table::new(10, 3);
        assert!(table.after(4).is_empty());
        table.keep(4, &[(1, 0.5), (2, 0.25), (3, 0.125), (5, 0.1)]);
        table.keep(9, &[(7, 0.9)]);
        assert_eq!(table.after(4), [(1, 0.5), (2, 0.25), (3, 0.125)]);
        assert_eq!(table.after(9), [(7, 0.9)]);
        table.keep(4, &[(6, 1.0)]);
        table.keep(9, &[]);
        assert_eq!((table.after(4), table.after(9)), (&[(6, 1.0)][..], &[(7, 0.9)][..]));
        table.keep(10, &[(1, 0.5)]);
        assert!(table.after(10).is_empty() && table.after(Token::MAX).is_empty());
    }

    #[test]
    fn memory_is_bounded_by_the_vocabulary() {
        let (n_vocab, successors) = (5_000, 8);
        let mut table = Table::new(n_vocab, successors);
        assert_eq!(table.heap_bytes(), 0);
        let top = [(1, 0.5); 8];
        table.keep(4_999, &top);
        assert!(table.heap_bytes() < 4 * n_vocab + 5_000);
        for token in 0..3 * n_vocab as Token {
            table.keep(token, &top);
        }
        let needed = n_vocab * (4 + 8 * successors);
        assert_eq!(table.heap_bytes(), needed);
    }
}
