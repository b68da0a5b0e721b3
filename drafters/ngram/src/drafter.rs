//! The drafter itself: one index per text, brought up to date from the context, and a tree grown from
//! it best first. It decides nothing about acceptance and never looks at a model.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::ops::Range;

use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, NodeId, SeqId, Token, TokenTree};

use crate::predict::{predict, Trust, MAX_VOTES};
use crate::settings::Settings;
use crate::suffixes::{Occurrence, SuffixIndex, Walk};

/// Guesses what followed the same tokens earlier in the text.
///
/// It learns from [`commit`](Drafter::commit), and [`draft`](Drafter::draft) works without it as well:
/// whatever the context has more, or other, than was committed is caught up with.
pub struct NgramDrafter {
    settings: Settings,
    texts: HashMap<SeqId, Text>,
    scratch: Scratch,
}

impl NgramDrafter {
    /// A drafter that has seen no text.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn new(settings: Settings) -> Result<NgramDrafter, DraftError> {
        Ok(NgramDrafter { settings: settings.checked()?, texts: HashMap::new(), scratch: Scratch::default() })
    }

    /// Bytes on the heap for all texts: what is allocated, whether in use or not.
    pub fn heap_bytes(&self) -> usize {
        let texts = self.texts.values().map(|text| size_of::<(SeqId, Text)>() + text.index.heap_bytes());
        texts.sum::<usize>() + self.scratch.heap_bytes()
    }

    fn text(&mut self, seq: SeqId, context: &[Token]) -> &Text {
        let text = self.texts.entry(seq).or_insert_with(|| Text::new(self.settings.max_match));
        text.follow(context);
        text
    }
}

impl Drafter for NgramDrafter {
    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        if tree.room() == 0 || tree.shape().depth == 0 {
            return Ok(());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let settings = self.settings;
        Growth { text: self.text(request.seq, request.context), settings, scratch: &mut scratch, tree }.grow();
        self.scratch = scratch;
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        self.text(commit.seq, commit.context);
        Ok(())
    }

    fn end(&mut self, seq: SeqId) {
        self.texts.remove(&seq);
    }
}

/// What is kept of one text.
struct Text {
    index: SuffixIndex,
    trust: Trust,
}

impl Text {
    fn new(max_match: usize) -> Text {
        Text { index: SuffixIndex::new(max_match), trust: Trust::default() }
    }

    /// Make the index that of `context`. Costs what is new; a context that shares only a part of its
    /// beginning with the text so far costs what differs.
    fn follow(&mut self, context: &[Token]) {
        let known = self.index.tokens();
        let both = known.len().min(context.len());
        // The last tokens that both have tell whether one continues the other: reading all of them in
        // every round would cost more than drafting. A context that differs only further back goes
        // unnoticed and makes guesses worse, never wrong.
        let tail = both.saturating_sub(TAIL)..both;
        if known[tail.clone()] != context[tail] {
            let shared = known.iter().zip(context).take_while(|(a, b)| a == b).count();
            if shared < known.len() / 2 {
                *self = Text::new(self.index.max_match());
            } else {
                self.index.truncate(shared);
            }
        } else {
            self.index.truncate(both);
        }
        for &token in context.get(self.index.tokens().len()..).unwrap_or_default() {
            if let Some(longest) = self.index.longest() {
                self.trust.record(longest.len, self.index.tokens()[longest.end as usize + 1] == token);
            }
            self.index.append(token);
        }
    }
}

/// One draft: the tree grows by its likeliest branch, again and again, until it is full or there is
/// nothing more to guess.
struct Growth<'a> {
    text: &'a Text,
    settings: Settings,
    scratch: &'a mut Scratch,
    tree: &'a mut TokenTree,
}

impl Growth<'_> {
    fn grow(mut self) {
        self.scratch.clear();
        self.expand(NodeId::ROOT, 0..0, 1.0);
        while let Some(branch) = self.scratch.frontier.pop() {
            let Some(node) = self.tree.add(branch.parent, branch.token, branch.belief) else {
                if self.tree.room() == 0 {
                    return;
                }
                continue;
            };
            if self.tree.room() == 0 {
                return;
            }
            if self.tree.depth(node) < self.tree.shape().depth {
                let occurrences = self.narrow(branch.occurrences, branch.token);
                self.expand(node, occurrences, branch.survival);
            }
        }
    }

    /// The occurrences among `range` that went on with `token`, each one token on.
    fn narrow(&mut self, range: Range<usize>, token: Token) -> Range<usize> {
        let tokens = self.text.index.tokens();
        let longest = self.text.index.max_match() as u32;
        let start = self.scratch.occurrences.len();
        for i in range {
            let Occurrence { end, len } = self.scratch.occurrences[i];
            let next = end + 1;
            if tokens[next as usize] == token && (next as usize) + 1 < tokens.len() {
                self.scratch.occurrences.push(Occurrence { end: next, len: (len + 1).min(longest) });
            }
        }
        start..self.scratch.occurrences.len()
    }

    /// Put the branches of `node` on the frontier, at most as many as the tree is wide. `occurrences`
    /// are those of the parent that led here; too few, and the index is asked for those of this node's
    /// own suffix, which may be shorter.
    fn expand(&mut self, node: NodeId, mut occurrences: Range<usize>, survival: f32) {
        if occurrences.len() < FEW {
            occurrences = self.search(node);
        }
        let (tokens, scratch) = (self.text.index.tokens(), &mut *self.scratch);
        scratch.votes.clear();
        let votes = scratch.occurrences[occurrences.clone()].iter();
        scratch.votes.extend(votes.map(|&Occurrence { end, len }| (len, tokens[end as usize + 1])));
        predict(&scratch.votes, &self.text.trust, &mut scratch.beliefs);
        for &(token, belief) in scratch.beliefs.iter().take(self.tree.width()) {
            if belief >= self.settings.min_belief {
                let born = scratch.born;
                scratch.born += 1;
                let (survival, occurrences) = (survival * belief, occurrences.clone());
                scratch.frontier.push(Branch { survival, born, parent: node, token, belief, occurrences });
            }
        }
    }

    fn search(&mut self, node: NodeId) -> Range<usize> {
        let (index, scratch) = (&self.text.index, &mut *self.scratch);
        scratch.past.clear();
        let mut at = node;
        while let Some(parent) = self.tree.parent(at) {
            scratch.past.push(self.tree.token(at));
            at = parent;
        }
        scratch.past.extend(index.tokens().iter().rev().take(index.max_match()));
        let start = scratch.occurrences.len();
        let least = self.settings.min_match;
        index.search(&scratch.past, least, OCCURRENCES, &mut scratch.walk, &mut scratch.occurrences);
        start..scratch.occurrences.len()
    }
}

/// A child that may be added, and the occurrences of its parent's suffix, by their range in the scratch
/// space.
#[derive(Clone, Debug)]
struct Branch {
    survival: f32,
    born: u32,
    parent: NodeId,
    token: Token,
    belief: f32,
    occurrences: Range<usize>,
}

impl Ord for Branch {
    /// By survival; the older first among equals.
    fn cmp(&self, other: &Branch) -> Ordering {
        self.survival.total_cmp(&other.survival).then(other.born.cmp(&self.born))
    }
}

impl PartialOrd for Branch {
    fn partial_cmp(&self, other: &Branch) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Branch {
    fn eq(&self, other: &Branch) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Branch {}

/// What a draft needs for a moment, kept for its memory.
#[derive(Default)]
struct Scratch {
    frontier: BinaryHeap<Branch>,
    born: u32,
    occurrences: Vec<Occurrence>,
    past: Vec<Token>,
    votes: Vec<(u32, Token)>,
    beliefs: Vec<(Token, f32)>,
    walk: Walk,
}

impl Scratch {
    fn clear(&mut self) {
        self.frontier.clear();
        self.occurrences.clear();
        self.born = 0;
    }

    fn heap_bytes(&self) -> usize {
        self.frontier.capacity() * size_of::<Branch>()
            + self.occurrences.capacity() * size_of::<Occurrence>()
            + self.past.capacity() * size_of::<Token>()
            + (self.votes.capacity() + self.beliefs.capacity()) * size_of::<(Token, f32)>()
            + self.walk.heap_bytes()
    }
}

/// Most occurrences that are counted for a node.
const OCCURRENCES: usize = 16;
const _: () = assert!(OCCURRENCES <= MAX_VOTES);

/// With fewer inherited occurrences than this, a node looks for its own.
const FEW: usize = 1;

/// How many tokens are compared to tell whether a context continues the text.
const TAIL: usize = 16;
