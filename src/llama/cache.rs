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

    /// Whether no token is committed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it holds committed tokens only.
    pub fn is_settled(&self) -> bool {
        self.nodes.is_empty()
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
            let had_nodes = tip.take().is_some();
            if had_nodes || *owned > 0 || seq as Seq == self.main {
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use foretoken_drafter::Shape;

    use super::*;

    /// llama.cpp's memory as far as sequences go: cells and who owns them, with its rules as panics.
    #[derive(Default)]
    struct Memory {
        cells: Vec<(usize, Token, BTreeSet<Seq>)>,
        calls: usize,
    }

    impl Memory {
        fn call(&mut self, calls: &[MemoryCall]) {
            self.calls += calls.len();
            for call in calls {
                match *call {
                    MemoryCall::Remove { seq, from } => {
                        self.cells.iter_mut().filter(|c| c.0 >= from).for_each(|c| {
                            c.2.remove(&seq);
                        });
                        self.cells.retain(|c| !c.2.is_empty());
                    }
                    MemoryCall::Copy { from, to, start, end } => {
                        for cell in self.cells.iter_mut().filter(|c| (start..end).contains(&c.0)) {
                            assert!(!cell.2.contains(&to), "{to} owns position {} already", cell.0);
                            if cell.2.contains(&from) {
                                cell.2.insert(to);
                            }
                        }
                    }
                }
            }
        }

        fn decode(&mut self, batch: &[Entry]) {
            let before: BTreeMap<Seq, usize> = batch
                .iter()
                .flat_map(|e| &e.seqs)
                .map(|&seq| (seq, self.cells.iter().filter(|c| c.2.contains(&seq)).count()))
                .collect();
            for entry in batch {
                assert!(!entry.seqs.is_empty(), "a token without a sequence");
                let ends: BTreeSet<usize> = entry.seqs.iter().map(|seq| before[seq]).collect();
                assert_eq!(ends.len(), 1, "sequences that share a token must end alike in memory");
                for &seq in &entry.seqs {
                    let len = self.cells.iter().filter(|c| c.2.contains(&seq)).count();
                    assert_eq!(len, entry.position, "sequence {seq} has a gap or an overlap");
                }
                self.cells.push((entry.position, entry.token, entry.seqs.iter().copied().collect()));
            }
        }

        /// The text that a cell attends to: all cells that share its first sequence, up to it.
        fn text(&self, entry: &Entry) -> Vec<Token> {
            let seq = entry.seqs[0];
            let mut seen: Vec<(usize, Token)> =
                self.cells.iter().filter(|c| c.2.contains(&seq) && c.0 <= entry.position).map(|c| (c.0, c.1)).collect();
            seen.sort_unstable();
            seen.iter().map(|c| c.1).collect()
        }
    }

    struct Model {
        memory: Memory,
        cache: TreeCache,
    }

    impl Model {
        fn new(seqs: usize) -> Model {
            Model { memory: Memory::default(), cache: TreeCache::new(seqs) }
        }

        /// Score, and check that every row would see exactly its path.
        fn score(&mut self, context: &[Token], tree: &TokenTree, new: &[NodeId]) {
            let (&root, before) = context.split_last().unwrap();
            let calls = self.cache.keep_prefix(before, root);
            self.memory.call(&calls);
            let growth = self.cache.grow(&context[self.cache.len()..], tree, new).unwrap();
            self.memory.call(&growth.calls);
            self.memory.decode(&growth.batch);
            assert_eq!(growth.rows.len(), new.len());
            for (&row, &node) in growth.rows.iter().zip(new) {
                assert!(growth.batch[row].output);
                let wanted = [context, &tree.path(node)].concat();
                assert_eq!(self.memory.text(&growth.batch[row]), wanted, "node {node:?}");
            }
            assert_eq!(growth.batch.iter().filter(|e| e.output).count(), new.len());
        }
    }

    struct NoDice;
    impl foretoken_drafter::Dice for NoDice {
        fn pick(&mut self, _: &[f64]) -> usize {
            0
        }
    }

    fn tree(root: Token) -> TokenTree {
        let mut tree = TokenTree::new(1000, Box::new(NoDice));
        tree.begin(root, Shape { max_nodes: 64, depth: 64, width: 64 });
        tree
    }

    /// A small generator of pseudo-random numbers.
    struct Random(u64);
    impl Random {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((self.0 >> 33) as usize) % n
        }
    }

    #[test]
    fn a_chain_costs_one_call_a_round() {
        let mut model = Model::new(2);
        let mut context = vec![1, 2, 3];
        for round in 0..20 {
            let mut t = tree(*context.last().unwrap());
            let mut at = NodeId::ROOT;
            for i in 0..4 {
                at = t.add(at, 10 + i, 0.5).unwrap();
            }
            let calls = model.memory.calls;
            model.score(&context, &t, &t.ids().collect::<Vec<_>>());
            assert!(model.memory.calls - calls <= 1);
            let accepted: Vec<NodeId> = t.ids().skip(1).take(round % 5).collect();
            context.extend(accepted.iter().map(|&n| t.token(n)));
            context.push(100 + round as Token);
        }
    }

    #[test]
    fn random_trees_grown_in_any_order_and_committed_see_their_own_paths() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let mut model = Model::new(65);
            let mut context: Vec<Token> = (0..1 + random.below(5) as Token).collect();
            for round in 0..6 {
                let mut t = tree(*context.last().unwrap());
                model.score(&context, &t, &[NodeId::ROOT]);
                for _ in 0..random.below(6) {
                    let mut new = Vec::new();
                    for _ in 0..1 + random.below(5) {
                        let parent = t.ids().nth(random.below(t.len())).unwrap();
                        let known = t.len();
                        let node = t.add(parent, random.below(4) as Token, 0.5).unwrap();
                        if node.index() >= known {
                            new.push(node);
                        }
                    }
                    if !new.is_empty() {
                        model.score(&context, &t, &new);
                    }
                }
                let mut at = NodeId::ROOT;
                while random.below(4) > 0 {
                    let children: Vec<NodeId> = t.children(at).collect();
                    let Some(&next) = children.get(random.below(children.len().max(1))) else { break };
                    context.push(t.token(next));
                    at = next;
                }
                context.push(900 + round);
            }
        }
    }

    #[test]
    fn missing_ancestors_repeats_and_going_back_are_handled() {
        let mut model = Model::new(8);
        let mut t = tree(3);
        let a = t.add(NodeId::ROOT, 4, 0.5).unwrap();
        let b = t.add(a, 5, 0.5).unwrap();
        let c = t.add(NodeId::ROOT, 6, 0.5).unwrap();
        model.score(&[1, 2, 3], &t, &[b]); // the root and a come along
        model.score(&[1, 2, 3], &t, &[c, b]); // b has lost its logits
        model.score(&[1, 2, 3, 4, 5, 7], &tree(7), &[NodeId::ROOT]);
        model.score(&[1, 9], &tree(9), &[NodeId::ROOT]); // another text
        model.score(&[1, 9], &tree(9), &[NodeId::ROOT]);
        model.score(&[1, 8], &tree(8), &[NodeId::ROOT]); // another last token
    }

    #[test]
    fn spares_that_run_out_are_reclaimed() {
        let mut model = Model::new(3);
        let mut t = tree(1);
        model.score(&[1], &t, &[NodeId::ROOT]);
        for token in 2..5 {
            let node = t.add(NodeId::ROOT, token, 0.5).unwrap();
            model.score(&[1], &t, &[node]); // three leaves in the end, but one at a time
        }
        let node = t.add(NodeId::ROOT, 7, 0.5).unwrap();
        model.score(&[1], &t, &[node]);
        let mut wide = tree(1);
        let all: Vec<NodeId> = (2..6).map(|token| wide.add(NodeId::ROOT, token, 0.5).unwrap()).collect();
        assert_eq!(model.cache.grow(&[], &wide, &all), Err(TooManyLeaves));
    }

    #[test]
    fn after_a_failed_decode_the_committed_tokens_remain() {
        let mut model = Model::new(4);
        let mut t = tree(3);
        model.score(&[1, 2, 3], &t, &[NodeId::ROOT]);
        let a = t.add(NodeId::ROOT, 4, 0.5).unwrap();
        let b = t.add(NodeId::ROOT, 5, 0.5).unwrap();
        let growth = model.cache.grow(&[3], &t, &[a, b]).unwrap();
        model.memory.call(&growth.calls); // and the decode fails
        let calls = model.cache.reset();
        model.memory.call(&calls);
        model.score(&[1, 2, 3], &t, &[NodeId::ROOT, a, b]);
    }

    #[test]
    fn after_a_failed_decode_nothing_remains_of_a_text_of_one_token() {
        let mut model = Model::new(4);
        let mut t = tree(3);
        model.score(&[3], &t, &[NodeId::ROOT]);
        let [a, b] = [4, 5].map(|token| t.add(NodeId::ROOT, token, 0.5).unwrap());
        let growth = model.cache.grow(&[3], &t, &[a, b]).unwrap();
        model.memory.call(&growth.calls); // and the decode fails
        let calls = model.cache.reset();
        model.memory.call(&calls);
        model.score(&[3], &t, &[NodeId::ROOT, a, b]);
    }
}
