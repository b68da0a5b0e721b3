//! Where in the text did the tokens before this place occur before?
//!
//! The index answers what a suffix automaton of the text would: the longest suffix that occurred
//! earlier, and every earlier occurrence of it and of its shorter suffixes, longest first, while the
//! text grows token by token. The drafter asks it; it knows nothing of trees, beliefs or models.
//!
//! It is no automaton, though. An automaton with counts needs up to 2n states with their edges, and
//! an update of all suffix links per token to keep the counts. Here every place in the text is one
//! node of a binary search tree, ordered by the tokens *before* the place, read backwards; places
//! with the same last token share a tree. Two places that follow the same tokens are then neighbours,
//! whatever the length of what they share, and the past of a place never changes, so nothing is ever
//! rebuilt. A new place becomes the root of its tree, which is split around it on the way down; so
//! the newest are on top, and the tree is a treap whose priority is recency (the match finder of
//! LZMA, turned round). A node is two positions: 8 bytes, 4 for the token itself, and the map from a
//! token to its root.
//!
//! What is capped, so that no input is slow:
//!
//! * Tokens are compared `max_match` deep. Places that agree that far count as equal, the newer
//!   first; no longer match is reported. Texts that nearly repeat themselves everywhere (Fibonacci's
//!   word) pay for it: 3 µs per token at 32, 25 µs at 1024.
//! * A walk takes at most [`MAX_STEPS`] steps. Usual trees are 2 ln m deep for m places, so only
//!   unusual texts reach that; then the oldest places of the token are forgotten.
//! * Positions are `u32`: past [`MAX_TOKENS`] tokens nothing more is appended.

use std::collections::HashMap;

use foretoken_drafter::Token;

/// Most steps of a walk down a tree.
pub const MAX_STEPS: usize = 128;

/// Most tokens of a text.
pub const MAX_TOKENS: usize = u32::MAX as usize - 1;

/// An earlier place where the last `len` tokens are those that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Index in the text of the last of these tokens; what followed it stands at `end + 1`.
    pub end: u32,
    /// How many tokens agree, counted backwards; at most `max_match`.
    pub len: u32,
}

/// A growing text with all its repetitions.
#[derive(Clone, Debug)]
pub struct SuffixIndex {
    tokens: Vec<Token>,
    /// By place: the roots of what is below it in its tree, first the lesser, then the greater pasts.
    below: Vec<[u32; 2]>,
    roots: HashMap<Token, u32>,
    max_match: usize,
    longest: Option<Occurrence>,
}

impl SuffixIndex {
    /// An empty text, whose repetitions will be followed `max_match` tokens back (at least 1).
    pub fn new(max_match: usize) -> SuffixIndex {
        let max_match = max_match.max(1);
        SuffixIndex { tokens: Vec::new(), below: Vec::new(), roots: HashMap::new(), max_match, longest: None }
    }

    /// The text.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// How far back repetitions are followed, in tokens.
    pub fn max_match(&self) -> usize {
        self.max_match
    }

    /// The longest suffix of the text that occurred before, at the latest place that has it. `None`:
    /// the last token is new, or the text was truncated since the last append.
    pub fn longest(&self) -> Option<Occurrence> {
        self.longest
    }

    /// Bytes on the heap: what is allocated, whether in use or not.
    pub fn heap_bytes(&self) -> usize {
        // A std map keeps a power of two of slots, at most 7/8 full, with a byte of its own for each.
        let slots = match self.roots.capacity() {
            0 => 0,
            entries => (entries * 8 / 7).next_power_of_two(),
        };
        self.tokens.capacity() * size_of::<Token>()
            + self.below.capacity() * size_of::<[u32; 2]>()
            + slots * (size_of::<(Token, u32)>() + 1)
    }

    /// Add the next token: a walk of O(log n) steps on usual texts, [`MAX_STEPS`] at worst.
    pub fn append(&mut self, token: Token) {
        if self.tokens.len() >= MAX_TOKENS {
            return;
        }
        let here = self.tokens.len();
        self.tokens.push(token);
        self.below.push([NONE; 2]);
        self.longest = None;
        let mut at = self.roots.insert(token, here as u32).unwrap_or(NONE);
        // The places where what is lesser, and what is greater, is to be hung; and how many tokens the
        // node there shares with the new place. All that is between them shares the smaller number.
        let mut open = [(here, LESSER), (here, GREATER)];
        let mut shared = [0; 2];
        for _ in 0..MAX_STEPS {
            if at == NONE {
                break;
            }
            let (len, side) = self.compare_places(at as usize, here, shared[0].min(shared[1]));
            if self.longest.is_none_or(|best| len > best.len as usize) {
                self.longest = Some(Occurrence { end: at, len: len as u32 });
            }
            let (node, slot) = open[side];
            self.below[node][slot] = at;
            open[side] = (at as usize, 1 - side);
            shared[side] = len;
            at = self.below[at as usize][1 - side];
        }
        for (node, slot) in open {
            self.below[node][slot] = NONE;
        }
    }

    /// Take back all but the first `len` tokens: O(log n) each, as if they had never been there.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.tokens.len() {
            return;
        }
        self.longest = None;
        while self.tokens.len() > len {
            let (Some(token), Some([lesser, greater])) = (self.tokens.pop(), self.below.pop()) else { return };
            match self.join(lesser, greater) {
                NONE => self.roots.remove(&token),
                root => self.roots.insert(token, root),
            };
        }
    }

    /// Earlier places that continue `past`, longest match first and, where that is equal, in no
    /// particular order save that equals up to `max_match` come newest first: up to `most` of at
    /// least `least` tokens, appended to `found`.
    ///
    /// `past` is read backwards: `past[0]` is the token next to the place asked about. It need not be
    /// in the text. Places at the very end of the text, which nothing follows yet, are left out.
    pub fn search(&self, past: &[Token], least: usize, most: usize, walk: &mut Walk, found: &mut Vec<Occurrence>) {
        let past = &past[..past.len().min(self.max_match)];
        let Some(&root) = past.first().and_then(|token| self.roots.get(token)) else { return };
        self.descend(root, past, walk);
        let wanted = found.len() + most;
        let mut next = [self.outward(LESSER, past, least, walk), self.outward(GREATER, past, least, walk)];
        while found.len() < wanted {
            let side = match next {
                [None, None] => break,
                [Some(a), Some(b)] => usize::from((b.len, b.end) > (a.len, a.end)),
                [a, _] => usize::from(a.is_none()),
            };
            found.extend(next[side]);
            next[side] = self.outward(side, past, least, walk);
        }
    }

    /// From `root` to where `past` belongs; leaves the nodes passed on either side in `walk`.
    fn descend(&self, root: u32, past: &[Token], walk: &mut Walk) {
        walk.passed.iter_mut().for_each(Vec::clear);
        let mut at = root;
        let mut shared = [0; 2];
        for _ in 0..MAX_STEPS {
            if at == NONE {
                break;
            }
            let (len, side) = self.compare(at as usize, past, shared[0].min(shared[1]));
            walk.passed[side].push(at);
            shared[side] = len;
            at = self.below[at as usize][1 - side];
        }
    }

    /// The next place outward on one side; matches get shorter on the way.
    fn outward(&self, side: usize, past: &[Token], least: usize, walk: &mut Walk) -> Option<Occurrence> {
        loop {
            let end = walk.passed[side].pop()?;
            let mut at = self.below[end as usize][side];
            for _ in 0..MAX_STEPS {
                if at == NONE {
                    break;
                }
                walk.passed[side].push(at);
                at = self.below[at as usize][1 - side];
            }
            let (len, _) = self.compare(end as usize, past, 0);
            if len < least {
                walk.passed[side].clear();
                return None;
            }
            if end as usize + 1 < self.tokens.len() {
                return Some(Occurrence { end, len: len as u32 });
            }
        }
    }

    /// How many tokens up to place `at` agree with `past` (at least `from` do), and on which side of
    /// it `at` stands. Where they agree throughout, `at` is the older and so the lesser.
    fn compare(&self, at: usize, past: &[Token], from: usize) -> (usize, usize) {
        let rest = self.tokens[..=at].iter().rev().zip(past).skip(from);
        let mut len = from;
        for (&there, &here) in rest {
            if there != here {
                return (len, usize::from(there > here));
            }
            len += 1;
        }
        (len, LESSER)
    }

    /// [`compare`](SuffixIndex::compare) with the past of a later place of the text.
    fn compare_places(&self, at: usize, here: usize, from: usize) -> (usize, usize) {
        let most = self.max_match.min(at + 1);
        let (there, here) = (&self.tokens[at + 1 - most..=at], &self.tokens[here + 1 - most..=here]);
        let mut len = from;
        for (there, here) in there.iter().rev().zip(here.iter().rev()).skip(from) {
            if there != here {
                return (len, usize::from(there > here));
            }
            len += 1;
        }
        (len, LESSER)
    }

    /// One tree of two, all of `lesser` being before all of `greater`; the newer root is on top.
    fn join(&mut self, mut lesser: u32, mut greater: u32) -> u32 {
        let mut root = NONE;
        let mut open = None;
        loop {
            let (node, slot) = match (lesser, greater) {
                (NONE, last) | (last, NONE) => (last, None),
                (a, b) if a > b => (a, Some(GREATER)),
                (_, b) => (b, Some(LESSER)),
            };
            match open {
                None => root = node,
                Some((above, slot)) => self.below[above as usize][slot] = node,
            }
            let Some(slot) = slot else { return root };
            open = Some((node, slot));
            *if slot == GREATER { &mut lesser } else { &mut greater } = self.below[node as usize][slot];
        }
    }
}

/// Scratch space of a [`search`](SuffixIndex::search), kept between calls for its memory.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    passed: [Vec<u32>; 2],
}

impl Walk {
    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.passed.iter().map(|side| side.capacity() * size_of::<u32>()).sum()
    }
}

const NONE: u32 = u32::MAX;
const LESSER: usize = 0;
const GREATER: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAP: usize = 6;

    fn index(tokens: &[Token]) -> SuffixIndex {
        let mut index = SuffixIndex::new(CAP);
        tokens.iter().for_each(|&t| index.append(t));
        index
    }

    fn past(tokens: &[Token]) -> Vec<Token> {
        tokens.iter().rev().copied().collect()
    }

    fn search(index: &SuffixIndex, past: &[Token], least: usize, most: usize) -> Vec<Occurrence> {
        let mut found = Vec::new();
        index.search(past, least, most, &mut Walk::default(), &mut found);
        found
    }

    /// Every place but the last with what it shares with `past`, by looking at all of them.
    fn oracle(tokens: &[Token], past: &[Token]) -> Vec<Occurrence> {
        let ends = 0..tokens.len().saturating_sub(1);
        let shared =
            |end: usize| tokens[..=end].iter().rev().zip(past).take(CAP).take_while(|(a, b)| a == b).count() as u32;
        ends.map(|end| Occurrence { end: end as u32, len: shared(end) }).filter(|o| o.len > 0).collect()
    }

    fn by_end(mut found: Vec<Occurrence>) -> Vec<Occurrence> {
        found.sort_by_key(|o| o.end);
        found
    }

    proptest! {
        #[test]
        fn all_occurrences_are_found_longest_first(
            tokens in prop::collection::vec(0u32..3, 0..90),
            guess in prop::collection::vec(0u32..3, 0..8),
        ) {
            let index = index(&tokens);
            let past = past(&[&tokens[..], &guess].concat());
            let found = search(&index, &past, 1, usize::MAX / 2);
            prop_assert!(found.is_sorted_by(|a, b| a.len >= b.len));
            prop_assert_eq!(by_end(found.clone()), oracle(&tokens, &past));
            let few = search(&index, &past, 2, 3);
            let lens = |found: &[Occurrence]| found.iter().filter(|o| o.len >= 2).map(|o| o.len).take(3).collect::<Vec<_>>();
            prop_assert_eq!(lens(&few), lens(&found));
            prop_assert!(few.len() <= 3 && few.iter().all(|o| o.len >= 2));
        }

        #[test]
        fn longest_is_the_longest_and_latest(tokens in prop::collection::vec(0u32..3, 0..60)) {
            let past = past(&tokens);
            let expected = oracle(&tokens, &past).into_iter().max_by_key(|o| (o.len, o.end));
            prop_assert_eq!(index(&tokens).longest(), expected);
        }

        #[test]
        fn what_is_taken_back_leaves_no_trace(
            tokens in prop::collection::vec(0u32..3, 0..60),
            more in prop::collection::vec(0u32..4, 0..60),
        ) {
            let mut other = index(&[&tokens[..], &more].concat());
            other.truncate(tokens.len());
            let index = index(&tokens);
            prop_assert_eq!(&other.tokens, &index.tokens);
            prop_assert_eq!(&other.below, &index.below);
            prop_assert_eq!(&other.roots, &index.roots);
        }
    }

    #[test]
    fn a_long_run_is_short_work() {
        let mut index = index(&[7; 10_000]);
        assert_eq!(index.longest(), Some(Occurrence { end: 9_998, len: CAP as u32 }));
        let found = search(&index, &[7; CAP], 1, 4);
        assert_eq!(found.iter().map(|o| o.end).collect::<Vec<_>>(), [9_998, 9_997, 9_996, 9_995]);
        // A past below that of the whole run has to pass it: the oldest of the run are forgotten.
        index.append(0);
        index.append(7);
        let found = search(&index, &[7; CAP], 1, usize::MAX / 2);
        assert!((MAX_STEPS - 1..10_000).contains(&found.len()), "{}", found.len());
        assert!(found.iter().any(|o| o.end == 9_999));
    }

    #[test]
    fn the_smallest_texts_have_no_matches() {
        assert_eq!(index(&[]).longest(), None);
        assert_eq!(index(&[3]).longest(), None);
        assert!(search(&index(&[]), &[3], 1, 9).is_empty());
        assert!(search(&index(&[3]), &[3], 1, 9).is_empty());
        assert!(search(&index(&[3, 3]), &[], 1, 9).is_empty());
        assert_eq!(search(&index(&[3, 3]), &[3, 3], 1, 9), [Occurrence { end: 0, len: 1 }]);
    }
}
