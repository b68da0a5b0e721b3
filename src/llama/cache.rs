//! Which tokens a llama.cpp context holds, and the cheapest way to the ones that are wanted next.
//!
//! Pure bookkeeping: it plans memory calls and batches, [`super::scorer`] carries them out. Cells are
//! known by their token path, never by node number, because node numbers start again every round and
//! several trees may be scored by one model.
//!
//! llama.cpp attends by *sequence*: a cell is visible to a token if they share one. So each leaf of
//! the tree is a sequence and a node is tagged with every leaf below it; then the whole tree is scored
//! in one pass without a special kernel. One sequence is *main* and holds exactly the committed
//! tokens between rounds, the others are spares that hold a prefix of them. To add a child to a node
//! whose sequences have moved on, a spare is forked from one of them. To commit a branch its leaf's
//! sequence becomes main, so a chain costs one removal per round and nothing is ever copied back.

use foretoken_drafter::{NodeId, Token, TokenTree};

/// A sequence id of the context.
pub type Seq = i32;

/// A call that changes which sequences own which cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are named in the variants' lines
pub enum MemoryCall {
    /// Take `seq` off all cells at positions `from` and later.
    Remove { seq: Seq, from: usize },
    /// Add `to` to the cells of `from` at positions `start..end`.
    Copy { from: Seq, to: Seq, start: usize, end: usize },
}

/// One token of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The token.
    pub token: Token,
    /// Its position in the text.
    pub position: usize,
    /// Every sequence that runs through it.
    pub seqs: Vec<Seq>,
    /// Whether its logits are wanted.
    pub output: bool,
}

/// One decode that scores nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// To be done before the decode.
    pub calls: Vec<MemoryCall>,
    /// The batch, parents before children.
    pub batch: Vec<Entry>,
    /// For each node asked for, its place in the batch.
    pub rows: Vec<usize>,
}

/// The tree has more leaves than there are sequences.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyLeaves;

/// What the context holds.
#[derive(Debug)]
pub struct TreeCache {
    /// Tokens that main holds, at positions 0, 1, …
    committed: Vec<Token>,
    main: Seq,
    /// By sequence: how many committed cells it owns, and the last cached node it runs through.
    seqs: Vec<(usize, Option<usize>)>,
    /// Cells beyond the committed ones, parents before children.
    nodes: Vec<Cached>,
}

#[derive(Debug)]
struct Cached {
    token: Token,
    /// `None`: follows the last committed token.
    parent: Option<usize>,
    position: usize,
}

impl TreeCache {
    /// An empty context with `n_seqs` sequences (at least one).
    pub fn new(n_seqs: usize) -> TreeCache {
        TreeCache { committed: Vec::new(), main: 0, seqs: vec![(0, None); n_seqs.max(1)], nodes: Vec::new() }
    }

    /// Keep the longest prefix of `wanted` and drop the rest; cached nodes on the way become
    /// committed. Nodes stay cached only if `wanted` is committed already and they descend from
    /// `root`, the token that follows.
    pub fn keep_prefix(&mut self, wanted: &[Token], root: Token) -> Vec<MemoryCall> {
        let mut calls = Vec::new();
        let common = self.committed.iter().zip(wanted).take_while(|(a, b)| a == b).count();
        if common < self.committed.len() {
            self.drop_nodes(&mut calls);
            self.committed.truncate(common);
            for (seq, (owned, _)) in self.seqs.iter_mut().enumerate().filter(|(_, (owned, _))| *owned > common) {
                *owned = common;
                calls.push(MemoryCall::Remove { seq: seq as Seq, from: common });
            }
            return calls;
        }
        match self.walk(&wanted[common..]) {
            Some(last) => self.commit(last, &mut calls),
            None if self.find(None, root).is_some() && common == wanted.len() => {}
            None => self.drop_nodes(&mut calls),
        }
        calls
    }

    /// Main was extended by `tokens`, decoded as plain context. No nodes may be cached.
    pub fn extend(&mut self, tokens: &[Token]) {
        debug_assert!(self.nodes.is_empty());
        self.committed.extend_from_slice(tokens);
        self.seqs[self.main as usize].0 = self.committed.len();
    }

    /// The sequence that holds the committed tokens.
    pub fn main(&self) -> Seq {
        self.main
    }

    /// How many tokens are committed.
    pub fn len(&self) -> usize {
        self.committed.len()
    }

    /// Plan to score `new` nodes of `tree`, whose root is the last token of `tail`; the rest of
    /// `tail` follows the committed tokens and is decoded on the way. Missing ancestors are added.
    /// The plan is taken as done; if it is not, call [`reset`](TreeCache::reset).
    ///
    /// # Errors
    /// There are more leaves than sequences; nothing has changed then but forgotten nodes.
    pub fn grow(&mut self, tail: &[Token], tree: &TokenTree, new: &[NodeId]) -> Result<Growth, TooManyLeaves> {
        let mut growth = Growth::default();
        let old = self.nodes.len();
        let rows = self.insert(tail, tree, new);
        // A node that is cached has lost its logits; and spares may have run out. Both are rare:
        // forget the nodes and score them again.
        if rows.iter().any(|&row| row < old) || self.assign_seqs(old, &mut growth).is_err() {
            self.nodes.truncate(old);
            growth = Growth::default();
            self.drop_nodes(&mut growth.calls);
            let rows = self.insert(tail, tree, new);
            if self.assign_seqs(0, &mut growth).is_err() {
                self.nodes.clear();
                return Err(TooManyLeaves);
            }
            growth.rows = rows;
        } else {
            growth.rows = rows.into_iter().map(|row| row - old).collect();
        }
        for &row in &growth.rows {
            growth.batch[row].output = true;
        }
        Ok(growth)
    }

    /// Forget every node: what a failed decode left behind is unknown.
    pub fn reset(&mut self) -> Vec<MemoryCall> {
        self.nodes.clear();
        let len = self.committed.len();
        let mut calls = Vec::new();
        for (seq, (owned, tip)) in self.seqs.iter_mut().enumerate() {
            *tip = None;
            if *owned > 0 || seq as Seq == self.main {
                calls.push(MemoryCall::Remove { seq: seq as Seq, from: len.min(*owned) });
            }
        }
        calls
    }

    /// The context was cleared.
    pub fn clear(&mut self) {
        *self = TreeCache::new(self.seqs.len());
    }

    fn find(&self, parent: Option<usize>, token: Token) -> Option<usize> {
        self.nodes.iter().position(|n| n.parent == parent && n.token == token)
    }

    /// The last cached node of the longest path that spells a beginning of `tokens`.
    fn walk(&self, tokens: &[Token]) -> Option<usize> {
        let mut at = None;
        for &token in tokens {
            match self.find(at, token) {
                Some(next) => at = Some(next),
                None => break,
            }
        }
        at
    }

    /// Whether `node` is `ancestor` or below it.
    fn runs_through(&self, node: usize, ancestor: usize) -> bool {
        let mut at = Some(node);
        while let Some(n) = at {
            if n == ancestor {
                return true;
            }
            at = self.nodes[n].parent;
        }
        false
    }

    /// The path to `last` becomes committed, everything else beyond the committed tokens goes.
    fn commit(&mut self, last: usize, calls: &mut Vec<MemoryCall>) {
        let (old, new) = (self.committed.len(), self.nodes[last].position + 1);
        // Every cached node lies on the path of some sequence's tip.
        let through = |tip: &Option<usize>| tip.is_some_and(|tip| self.runs_through(tip, last));
        let Some(heir) = self.seqs.iter().position(|(_, tip)| through(tip)) else { return };
        for (seq, &(_, tip)) in self.seqs.iter().enumerate() {
            let from = if seq == heir { new } else { old };
            if tip.is_some_and(|tip| seq != heir || tip != last) {
                calls.push(MemoryCall::Remove { seq: seq as Seq, from });
            }
        }
        self.seqs.iter_mut().for_each(|(_, tip)| *tip = None);
        let mut path = vec![self.nodes[last].token];
        let mut at = last;
        while let Some(parent) = self.nodes[at].parent {
            path.push(self.nodes[parent].token);
            at = parent;
        }
        self.committed.extend(path.iter().rev());
        self.nodes.clear();
        self.main = heir as Seq;
        self.seqs[heir].0 = new;
    }

    fn drop_nodes(&mut self, calls: &mut Vec<MemoryCall>) {
        for (seq, (_, tip)) in self.seqs.iter_mut().enumerate() {
            if tip.take().is_some() {
                calls.push(MemoryCall::Remove { seq: seq as Seq, from: self.committed.len() });
            }
        }
        self.nodes.clear();
    }

    /// Add what is missing of `tail`, the `new` nodes and their ancestors; returns the cached index
    /// of each node of `new`.
    fn insert(&mut self, tail: &[Token], tree: &TokenTree, new: &[NodeId]) -> Vec<usize> {
        let mut root = None;
        for &token in tail {
            root = Some(self.find_or_push(root, token));
        }
        let mut place: Vec<Option<usize>> = vec![None; tree.len()];
        place[0] = root;
        let mut missing = Vec::new();
        for &node in new {
            let mut at = node;
            while place[at.index()].is_none() {
                missing.push(at);
                // The root's place is known, so every other node reached here has a parent.
                let Some(parent) = tree.parent(at) else { break };
                at = parent;
            }
            while let Some(node) = missing.pop() {
                let parent = tree.parent(node).and_then(|p| place[p.index()]);
                place[node.index()] = Some(self.find_or_push(parent, tree.token(node)));
            }
        }
        new.iter().filter_map(|node| place[node.index()]).collect()
    }

    fn find_or_push(&mut self, parent: Option<usize>, token: Token) -> usize {
        self.find(parent, token).unwrap_or_else(|| {
            let position = parent.map_or(self.committed.len(), |p| self.nodes[p].position + 1);
            self.nodes.push(Cached { token, parent, position });
            self.nodes.len() - 1
        })
    }

    /// Find a sequence for every leaf among the nodes from `old` on, and tag its ancestors with it.
    fn assign_seqs(&mut self, old: usize, growth: &mut Growth) -> Result<(), TooManyLeaves> {
        let before = self.seqs.clone();
        let added = &self.nodes[old..];
        let mut is_leaf = vec![true; added.len()];
        for parent in added.iter().filter_map(|n| n.parent).filter(|&p| p >= old) {
            is_leaf[parent - old] = false;
        }
        let entry = |n: &Cached| Entry { token: n.token, position: n.position, seqs: Vec::new(), output: false };
        growth.batch = added.iter().map(entry).collect();
        for leaf in (0..added.len()).filter(|&i| is_leaf[i]) {
            let mut top = old + leaf;
            while let Some(parent) = self.nodes[top].parent.filter(|&p| p >= old) {
                top = parent;
            }
            let Some(seq) = self.seq_at(self.nodes[top].parent, &before, &mut growth.calls) else {
                self.seqs = before;
                return Err(TooManyLeaves);
            };
            self.seqs[seq as usize].1 = Some(old + leaf);
            let mut at = Some(old + leaf);
            while let Some(n) = at.filter(|&n| n >= old) {
                growth.batch[n - old].seqs.push(seq);
                at = self.nodes[n].parent;
            }
        }
        Ok(())
    }

    /// A sequence that ends exactly at `node` (`None`: at the last committed token) and is not taken
    /// yet, forked from another one if need be. `before` says where the sequences ended before this
    /// batch.
    fn seq_at(
        &mut self,
        node: Option<usize>,
        before: &[(usize, Option<usize>)],
        calls: &mut Vec<MemoryCall>,
    ) -> Option<Seq> {
        let ends_here = |seq: usize| match node {
            Some(_) => self.seqs[seq].1 == node,
            None => seq as Seq == self.main && self.seqs[seq].1.is_none(),
        };
        if let Some(seq) = (0..self.seqs.len()).find(|&seq| ends_here(seq)) {
            return Some(seq as Seq);
        }
        let source = match node {
            Some(node) => before.iter().position(|(_, tip)| tip.is_some_and(|tip| self.runs_through(tip, node)))?,
            None => self.main as usize,
        };
        let spare = |&seq: &usize| seq as Seq != self.main && self.seqs[seq].1.is_none();
        let spare = (0..self.seqs.len()).filter(spare).max_by_key(|&seq| self.seqs[seq].0)?;
        let (start, end) = (self.seqs[spare].0, node.map_or(self.committed.len(), |n| self.nodes[n].position + 1));
        if start < end {
            calls.push(MemoryCall::Copy { from: source as Seq, to: spare as Seq, start, end });
        }
        self.seqs[spare].0 = self.committed.len();
        Some(spare as Seq)
    }
}
