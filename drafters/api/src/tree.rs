//! The tree of guesses that a round verifies in one pass.
//!
//! Drafters grow it, the engine has it scored, the verifier walks it. It holds the two things that
//! must not be left to a drafter's good will: the budget (a node beyond it is refused) and the
//! proposal laws (a `q` exists only where the tree itself drew from it).

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::{Dice, Dist, Guess, Pace, Token};

/// A node of a [`TokenTree`]. Numbers start again every round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The last final token; every guess descends from it.
    pub const ROOT: NodeId = NodeId(0);

    /// The node's place in creation order; the root's is 0.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How large a tree may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Most nodes, the root not counted; 0 means no drafting.
    pub max_nodes: usize,
    /// Longest branch, in tokens; without a pace also the most passes of each part of a drafter.
    pub depth: usize,
    /// Children that a drafter should give to a node it expands; with 1, each drafter grows a chain. With 0, for models
    /// that cannot branch, the whole tree is one chain, whoever grows it: further children are refused.
    pub width: usize,
}

/// Children that the tree drew from one law, without replacement.
#[derive(Clone, Debug)]
pub struct Draw {
    /// The law of the first; each later one is drawn from what is left of it.
    pub q: Dist,
    parent: NodeId,
    nodes: Vec<NodeId>,
}

impl Draw {
    /// The children drawn, in order.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }
}

/// Guesses of what follows the last final token. Node 0 is that token; parents come before children.
pub struct TokenTree {
    nodes: Vec<Node>,
    draws: Vec<Draw>,
    shape: Shape,
    /// Draft passes of this part, and of the parts before it.
    passes: usize,
    reserved: usize,
    earlier_passes: usize,
    evaluations: Vec<Evaluation>,
    part: u16,
    round: u64,
    n_vocab: usize,
    dice: Option<Box<dyn Dice>>,
    pace: Option<Arc<dyn Pace>>,
}

/// An evaluation of something that guesses several tokens at once, as heads do: see
/// [`is_worth_evaluating`](TokenTree::is_worth_evaluating).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Which part of a combinator evaluated.
    pub part: usize,
    /// How many tokens deep its guesses may reach.
    pub depth: usize,
    /// What it took.
    pub took: Duration,
}

#[derive(Clone, Debug)]
struct Node {
    token: Token,
    parent: u32,
    depth: u32,
    belief: f32,
    survival: f32,
    /// Sum of the children's beliefs so far, and of what the pace made of them: what is left for later siblings.
    claimed: f32,
    spent: f32,
    part: u16,
    draw: Option<u32>,
    asked: bool,
    /// Put there by the part that grows now, or guessed by it too.
    own: bool,
    first_child: u32,
    last_drawn: u32,
    last_child: u32,
    next_sibling: u32,
}

const NONE: u32 = u32::MAX;

/// 0 is for trees that were not begun.
static NEXT_ROUND: AtomicU64 = AtomicU64::new(1);

impl TokenTree {
    /// A tree for tokens below `n_vocab`, which draws from `dice`. It holds nothing until
    /// [`begin`](TokenTree::begin).
    pub fn new(n_vocab: usize, dice: Box<dyn Dice>) -> TokenTree {
        let shape = Shape { max_nodes: 0, depth: 0, width: 1 };
        TokenTree {
            nodes: vec![Node::root(0)],
            draws: Vec::new(),
            shape,
            passes: 0,
            reserved: 0,
            earlier_passes: 0,
            evaluations: Vec::new(),
            part: 0,
            round: 0,
            n_vocab,
            dice: Some(dice),
            pace: None,
        }
    }

    /// A tree that is only its root and refuses to grow: for bringing a model's cache up to date.
    pub fn bare(root: Token) -> TokenTree {
        let shape = Shape { max_nodes: 0, depth: 0, width: 1 };
        TokenTree {
            nodes: vec![Node::root(root)],
            draws: Vec::new(),
            shape,
            passes: 0,
            reserved: 0,
            earlier_passes: 0,
            evaluations: Vec::new(),
            part: 0,
            round: 0,
            n_vocab: 0,
            dice: None,
            pace: None,
        }
    }

    /// Start a new round: forget every node, keep the memory.
    pub fn begin(&mut self, root: Token, shape: Shape) {
        self.nodes.clear();
        self.draws.clear();
        self.evaluations.clear();
        (self.passes, self.earlier_passes, self.part, self.reserved) = (0, 0, 0, 0);
        self.pace = None;
        self.round = NEXT_ROUND.fetch_add(1, Ordering::Relaxed);
        self.nodes.push(Node::root(root));
        self.shape = shape;
    }

    /// The same, with `pace` to decide how far the tree grows within `shape`.
    pub fn begin_paced(&mut self, root: Token, shape: Shape, pace: Arc<dyn Pace>) {
        self.begin(root, shape);
        self.pace = Some(pace);
    }

    /// Differs after every [`begin`](TokenTree::begin), of any tree. The engine refuses a tree that a drafter
    /// began anew or exchanged: that would drop what was drawn, for its value.
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Add a fixed choice (lookup, arg-max, top-k, head): a point mass.
    ///
    /// `belief` is the drafter's own estimate that the target agrees, given that `parent` was
    /// reached. A token that `parent` already has as a child is merged with it, so combinators need
    /// not look. `None`: refused, because the budget is spent, the branch is too long, the token is not
    /// in the vocabulary, or the guess is too unlikely to be worth its cost.
    pub fn add(&mut self, parent: NodeId, token: Token, belief: f32) -> Option<NodeId> {
        if let Some(child) = self.child(parent, token) {
            self.nodes[child.index()].own = true;
            return Some(child);
        }
        if !self.has_room_below(parent) || token as usize >= self.n_vocab {
            return None;
        }
        if !self.is_worth_adding(parent, belief) {
            return None;
        }
        Some(self.push(parent, token, belief, None))
    }

    /// Draw up to `n` distinct children of `parent` from `q`, without replacement, and keep `q` for
    /// the verifier.
    ///
    /// Tokens that `parent` already has as children are taken out of `q` first, so fixed choices may
    /// be added before: "the best k − 1 and one draw from the rest" (Hu et al., arXiv 2502.18779) is
    /// `add` k − 1 times, then `sample(…, 1)`. Fewer than `n` are drawn if the budget or the law's
    /// support ends; the range may be empty.
    pub fn sample(&mut self, parent: NodeId, q: Dist, n: usize) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        let first = self.nodes.len() as u32;
        self.draw_children(parent, q, n);
        (first..self.nodes.len() as u32).map(NodeId)
    }

    fn draw_children(&mut self, parent: NodeId, q: Dist, n: usize) {
        if n == 0 || !self.has_room_below(parent) || self.dice.is_none() {
            return;
        }
        let mut excluded: Vec<Token> = self.children(parent).map(|c| self.token(c)).collect();
        excluded.extend(q.tokens().iter().copied().filter(|&t| t as usize >= self.n_vocab));
        let Some(q) = q.without(&excluded) else { return };
        let draw = self.draws.len();
        let most = if self.shape.width == 0 { 1 } else { self.room() };
        self.draws.push(Draw { q, parent, nodes: Vec::with_capacity(n.min(most)) });
        for _ in 0..n.min(most) {
            if self.draw_one(draw).is_none() {
                break;
            }
        }
    }

    /// One more child from what is left of a draw's law; `None` if nothing is left.
    fn draw_one(&mut self, draw: usize) -> Option<NodeId> {
        let Draw { q, parent, nodes } = &self.draws[draw];
        let parent = *parent;
        let drawn: Vec<Token> = nodes.iter().map(|&n| self.token(n)).collect();
        let left = match drawn[..] {
            [] => Cow::Borrowed(q),
            _ => Cow::Owned(q.without(&drawn)?),
        };
        let token = left.draw(self.dice.as_deref_mut()?);
        let belief = drawn_belief(left.p(token));
        let node = self.push(parent, token, belief, Some(draw as u32));
        self.draws[draw].nodes.push(node);
        Some(node)
    }

    /// Nodes worth one more draft pass, best first; each is named once. Empty: stop, more would not
    /// pay.
    ///
    /// With a fixed shape that means: at most `depth` passes, the remaining budget spread evenly
    /// over the passes that remain, the likeliest nodes first. Where a law was drawn from, the tree draws
    /// siblings itself, up to the shape's width, as soon as one promises more than a further layer: the
    /// law is kept, so they cost no pass. How many is decided before each draw, never after.
    ///
    /// Nodes that earlier parts grew are named too, since a pass over several nodes costs little more than one over a
    /// single node, but the part's own branch goes first: it is not for another's beliefs to end it.
    ///
    /// At a [`Pace`] it means: as long as another pass, or another sibling, promises more than it costs.
    pub fn next_to_expand(&mut self) -> Vec<NodeId> {
        if let Some(pace) = self.pace.clone() {
            return self.next_at_pace(pace.as_ref());
        }
        let layers_left = self.shape.depth.saturating_sub(self.passes);
        let mut candidates = match layers_left {
            0 => Vec::new(),
            _ => self.candidates(),
        };
        if let Some(own) = candidates.iter().position(|&node| self.is_own_branch(node)) {
            candidates[..=own].rotate_right(1);
        }
        let deeper = candidates.iter().map(|&node| self.survival(node)).fold(0.0, f32::max) * FIRST_DRAW_ACCEPTED;
        self.draw_siblings_while(|_, gain| gain > deeper);
        if candidates.is_empty() || self.room() == 0 {
            return Vec::new();
        }
        candidates.truncate(self.affordable(&candidates, layers_left).max(1));
        self.ask_for(candidates)
    }

    /// Another pass is for the likeliest node and those that are not far behind: they share its cost.
    fn next_at_pace(&mut self, pace: &dyn Pace) -> Vec<NodeId> {
        let mut candidates = self.candidates();
        candidates.sort_by(|&a, &b| self.unclaimed(b).total_cmp(&self.unclaimed(a)).then(a.cmp(&b)));
        let best = candidates.first().copied().filter(|&best| self.room() > 0 && pace.another_pass(self, best));
        let least = best.map_or(0.0, |best| self.unclaimed(best));
        self.draw_siblings_while(|tree, gain| gain > least * FIRST_DRAW_ACCEPTED && pace.another_draw(tree, gain));
        if best.is_none() || self.room() == 0 {
            return Vec::new();
        }
        candidates.retain(|&node| self.unclaimed(node) >= least * NOT_FAR_BEHIND);
        candidates.truncate((self.room() / self.width()).max(1));
        self.ask_for(candidates)
    }

    /// Whether to evaluate something that guesses up to `depth` tokens at once below the root, as heads do: for drafters
    /// whose guesses cost time of another kind than [passes](TokenTree::next_to_expand). Nobody need ask; who does, and
    /// then says [what it took](TokenTree::evaluated), is spared the rounds in which it would not pay.
    pub fn is_worth_evaluating(&self, depth: usize) -> bool {
        let depth = depth.min(self.shape.depth);
        let has_room = self.room() > 0 && depth > 0;
        has_room && self.pace.as_ref().is_none_or(|pace| pace.an_evaluation(self, depth))
    }

    /// What was [asked about](TokenTree::is_worth_evaluating) was done and took this long.
    pub fn evaluated(&mut self, depth: usize, took: Duration) {
        let (part, depth) = (usize::from(self.part), depth.min(self.shape.depth));
        self.evaluations.push(Evaluation { part, depth, took });
    }

    /// The evaluations of this round so far.
    pub fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }

    /// Nodes that may get children and were not named yet, likeliest first.
    fn candidates(&self) -> Vec<NodeId> {
        let open = |&n: &NodeId| !self.node(n).asked && self.depth(n) < self.shape.depth;
        let mut candidates: Vec<NodeId> = self.ids().filter(open).collect();
        candidates.sort_by(|&a, &b| self.survival(b).total_cmp(&self.survival(a)).then(a.cmp(&b)));
        candidates
    }

    /// How many of `candidates`, in their order, the budget lets grow a layer in each pass that remains.
    fn affordable(&self, candidates: &[NodeId], layers_left: usize) -> usize {
        let layers = |&node: &NodeId| layers_left.min(self.shape.depth - self.depth(node));
        let costs = candidates.iter().map(|node| self.width().saturating_mul(layers(node)));
        let sums = costs.scan(0usize, |sum, cost| {
            *sum = sum.saturating_add(cost);
            Some(*sum)
        });
        sums.take_while(|&sum| sum <= self.room()).count()
    }

    /// Whether the part that grows now guessed every token down to `node`.
    fn is_own_branch(&self, node: NodeId) -> bool {
        let mut at = Some(node);
        while let Some(node) = at {
            if !self.node(node).own {
                return false;
            }
            at = self.parent(node);
        }
        true
    }

    fn ask_for(&mut self, nodes: Vec<NodeId>) -> Vec<NodeId> {
        self.passes += 1;
        for &node in &nodes {
            self.nodes[node.index()].asked = true;
        }
        nodes
    }

    fn draw_siblings_while(&mut self, pays: impl Fn(&TokenTree, f32) -> bool) {
        while self.room() > 0 {
            let open = (0..self.draws.len()).filter(|&draw| self.may_draw_more(draw));
            let best = open.map(|draw| (self.gain_of_sibling(draw), draw)).max_by(|a, b| a.0.total_cmp(&b.0));
            match best {
                Some((gain, draw)) if pays(self, gain) => {
                    if self.draw_one(draw).is_none() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Whether another child may come from this draw: within the width, something left, and no fixed
    /// sibling that it might repeat.
    fn may_draw_more(&self, draw: usize) -> bool {
        let Draw { q, parent, nodes } = &self.draws[draw];
        let children = self.children(*parent).count();
        children == nodes.len() && children < self.shape.width && children < q.tokens().len()
    }

    /// Probability that the walk comes by, finds the draw's children rejected, and accepts one more.
    fn gain_of_sibling(&self, draw: usize) -> f32 {
        let parent = self.node(self.draws[draw].parent);
        parent.survival * (1.0 - parent.spent) * LATER_DRAW_ACCEPTED
    }

    /// Forget which nodes [`next_to_expand`](TokenTree::next_to_expand) has named and how many passes were
    /// taken: a combinator calls it before each part but the first, whether it asks that part or not, so that a part has
    /// the same number in every round.
    pub fn next_part(&mut self) {
        self.earlier_passes += std::mem::take(&mut self.passes);
        self.part = self.part.saturating_add(1);
        for node in &mut self.nodes {
            node.asked = false;
            node.own = node.depth == 0;
        }
    }

    /// Keep `nodes` of the budget back from whoever grows the tree, until it is called again: how a combinator keeps
    /// one part from eating what the others need. Returns how many were kept back so far; a combinator that is itself
    /// a part adds to them, and puts them back when it is done.
    pub fn reserve(&mut self, nodes: usize) -> usize {
        std::mem::replace(&mut self.reserved, nodes)
    }

    /// This tree without the nodes `unwanted`, as far as they are fixed choices below which nothing stays. Numbers
    /// change.
    ///
    /// What was drawn stays, and so does the way to it: a tree that lacks fixed choices is one that a drafter might have
    /// grown, one that lacks drawn ones is not. It is a tree of another [`round`](TokenTree::round), so the engine,
    /// which has what is not worth scoring pruned, refuses one that a drafter pruned.
    pub fn pruned(mut self, unwanted: &[NodeId]) -> TokenTree {
        let mut stays = vec![true; self.nodes.len()];
        for node in unwanted.iter().filter(|node| **node != NodeId::ROOT && self.draw(**node).is_none()) {
            if let Some(stays) = stays.get_mut(node.index()) {
                *stays = false;
            }
        }
        for id in (1..self.nodes.len()).rev().filter(|&id| stays[id]).collect::<Vec<_>>() {
            let mut up = self.nodes[id].parent as usize;
            while !std::mem::replace(&mut stays[up], true) {
                up = self.nodes[up].parent as usize;
            }
        }
        self.round = NEXT_ROUND.fetch_add(1, Ordering::Relaxed);
        self.pace = None;
        if stays.iter().all(|&stays| stays) {
            return self;
        }
        let mut number = vec![NONE; stays.len()];
        let kept = (0..stays.len()).filter(|&id| stays[id]);
        kept.zip(0..).for_each(|(id, new)| number[id] = new);
        let order: Vec<Vec<u32>> = self
            .ids()
            .filter(|node| stays[node.index()])
            .map(|node| self.children(node).map(|c| number[c.index()]).filter(|&c| c != NONE).collect())
            .collect();
        for draw in &mut self.draws {
            draw.parent = NodeId(number[draw.parent.index()]);
            draw.nodes.iter_mut().for_each(|node| *node = NodeId(number[node.index()]));
        }
        let mut stays = stays.into_iter();
        self.nodes.retain(|_| stays.next().unwrap_or(true));
        for (id, children) in order.iter().enumerate() {
            let last_drawn = children.iter().rev().find(|&&c| self.nodes[c as usize].draw.is_some());
            let last_drawn = last_drawn.copied().unwrap_or(NONE);
            let node = &mut self.nodes[id];
            node.parent = number[node.parent as usize];
            node.first_child = children.first().copied().unwrap_or(NONE);
            node.last_child = children.last().copied().unwrap_or(NONE);
            node.last_drawn = last_drawn;
            for (i, &child) in children.iter().enumerate() {
                self.nodes[child as usize].next_sibling = children.get(i + 1).copied().unwrap_or(NONE);
            }
        }
        self
    }

    /// A copy that refuses to grow: for looking back at it once this one was cut. It is a tree of another
    /// [`round`](TokenTree::round), so it does not pass for this one.
    pub fn snapshot(&self) -> TokenTree {
        let shape = Shape { max_nodes: self.nodes.len() - 1, ..self.shape };
        TokenTree {
            nodes: self.nodes.clone(),
            draws: self.draws.clone(),
            evaluations: self.evaluations.clone(),
            shape,
            round: NEXT_ROUND.fetch_add(1, Ordering::Relaxed),
            dice: None,
            pace: None,
            ..*self
        }
    }

    /// Number of nodes, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether the tree is only its root: no guess.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// How many more nodes the budget allows, less what is [reserved](TokenTree::reserve).
    pub fn room(&self) -> usize {
        self.shape.max_nodes.saturating_sub(self.nodes.len() - 1).saturating_sub(self.reserved)
    }

    /// The budget of this round.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many fixed children a drafter should give to a node it expands; at least 1. Of drawn ones, one
    /// is enough: see [`next_to_expand`](TokenTree::next_to_expand).
    pub fn width(&self) -> usize {
        self.shape.width.max(1)
    }

    /// Every node, parents before children, the root first.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The token at `node`.
    pub fn token(&self, node: NodeId) -> Token {
        self.node(node).token
    }

    /// The parent of `node`; `None` for the root.
    pub fn parent(&self, node: NodeId) -> Option<NodeId> {
        (node != NodeId::ROOT).then(|| NodeId(self.node(node).parent))
    }

    /// Distance from the root, in tokens.
    pub fn depth(&self, node: NodeId) -> usize {
        self.node(node).depth as usize
    }

    /// Estimated probability that the verifier's walk reaches `node`: the product of the beliefs
    /// on its path, at a pace as it corrects them. An estimate for choosing shapes; exactness never depends on it.
    pub fn survival(&self, node: NodeId) -> f32 {
        self.node(node).survival
    }

    /// What the drafter believed of `node`: that the target agrees, given that its parent was reached.
    pub fn belief(&self, node: NodeId) -> f32 {
        self.node(node).belief
    }

    /// Which part of a combinator guessed `node`; 0 for any other drafter.
    pub fn part(&self, node: NodeId) -> usize {
        usize::from(self.node(node).part)
    }

    /// Draft passes that this round took so far.
    pub fn passes(&self) -> usize {
        self.earlier_passes + self.passes
    }

    /// The part of [`survival`](TokenTree::survival) that no child of `node` claims: how likely the walk is to end here,
    /// hence the most that further children can bring.
    pub fn unclaimed(&self, node: NodeId) -> f32 {
        let node = self.node(node);
        node.survival * (1.0 - node.spent).max(0.0)
    }

    /// The children of `node` in the order in which the verifier tries them: drawn ones first (they
    /// lose least by going first), then fixed ones.
    pub fn children(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let mut next = self.nodes.get(node.index()).map_or(NONE, |n| n.first_child);
        std::iter::from_fn(move || {
            let child = (next != NONE).then_some(NodeId(next))?;
            next = self.node(child).next_sibling;
            Some(child)
        })
    }

    /// The child of `node` that carries `token`.
    pub fn child(&self, node: NodeId, token: Token) -> Option<NodeId> {
        self.children(node).find(|&c| self.token(c) == token)
    }

    /// The draw that `node` came from; `None` for a fixed choice.
    pub fn draw(&self, node: NodeId) -> Option<&Draw> {
        self.node(node).draw.map(|d| &self.draws[d as usize])
    }

    /// Whether any node was drawn.
    pub fn has_draws(&self) -> bool {
        !self.draws.is_empty()
    }

    /// The tokens from the root's child down to `node`; empty for the root.
    pub fn path(&self, node: NodeId) -> Vec<Token> {
        let mut path = Vec::with_capacity(self.depth(node));
        let mut at = node;
        while let Some(parent) = self.parent(at) {
            path.push(self.token(at));
            at = parent;
        }
        path.reverse();
        path
    }

    /// A node's data; an id from a larger tree of an earlier round means the root.
    fn node(&self, node: NodeId) -> &Node {
        self.nodes.get(node.index()).unwrap_or(&self.nodes[0])
    }

    fn has_room_below(&self, parent: NodeId) -> bool {
        let is_shallow = self.nodes.get(parent.index()).is_some_and(|p| (p.depth as usize) < self.shape.depth);
        self.room() > 0 && is_shallow && (self.shape.width > 0 || self.children(parent).next().is_none())
    }

    fn is_worth_adding(&self, parent: NodeId, belief: f32) -> bool {
        let survival = |likely: Likely| self.survival(parent) * likely.acceptance;
        self.pace.as_ref().is_none_or(|pace| pace.is_worth_adding(survival(self.judge(parent, belief, false))))
    }

    /// How likely a guess is: as the drafter believes, and as the pace takes it.
    fn judge(&self, parent: NodeId, belief: f32, drawn: bool) -> Likely {
        let up = self.node(parent);
        let within = |p: f32, taken: f32| if p.is_finite() { p.clamp(0.0, (1.0 - taken).max(0.0)) } else { 0.0 };
        let belief = within(belief, up.claimed);
        let guess = Guess { belief, depth: up.depth as usize + 1, drawn, part: usize::from(self.part) };
        let acceptance = self.pace.as_ref().map_or(belief, |pace| within(pace.acceptance(guess), up.spent));
        Likely { belief, acceptance }
    }

    fn push(&mut self, parent: NodeId, token: Token, belief: f32, draw: Option<u32>) -> NodeId {
        let id = self.nodes.len() as u32;
        let (part, likely) = (self.part, self.judge(parent, belief, draw.is_some()));
        let up = &mut self.nodes[parent.index()];
        up.claimed += likely.belief;
        up.spent += likely.acceptance;
        let (depth, survival, first_child) = (up.depth + 1, up.survival * likely.acceptance, up.first_child);
        let after = if draw.is_some() { up.last_drawn } else { up.last_child };
        if draw.is_some() {
            up.last_drawn = id;
        }
        if after == up.last_child {
            up.last_child = id;
        }
        let mut node =
            Node { parent: parent.0, depth, belief: likely.belief, survival, part, draw, ..Node::root(token) };
        if after == NONE {
            node.next_sibling = first_child;
            self.nodes[parent.index()].first_child = id;
        } else {
            node.next_sibling = std::mem::replace(&mut self.nodes[after as usize].next_sibling, id);
        }
        self.nodes.push(node);
        NodeId(id)
    }
}

impl Node {
    fn root(token: Token) -> Node {
        Node {
            token,
            parent: 0,
            depth: 0,
            belief: 1.0,
            survival: 1.0,
            claimed: 0.0,
            spent: 0.0,
            part: 0,
            draw: None,
            asked: false,
            own: true,
            first_child: NONE,
            last_drawn: NONE,
            last_child: NONE,
            next_sibling: NONE,
        }
    }
}

/// Probability that the target agrees with a guess whose parent was reached.
#[derive(Clone, Copy)]
struct Likely {
    /// By the drafter.
    belief: f32,
    /// By the pace, or the same.
    acceptance: f32,
}

/// At a pace, a node shares a draft pass if its survival is at least this share of the likeliest one's. A choice.
const NOT_FAR_BEHIND: f32 = 0.5;

/// Share of first draws taken to be accepted, and of later ones once the first was rejected. Choices, not fits: about
/// what synthetic pairs of laws over 8 tokens give at temperature 1; not measured on models.
const FIRST_DRAW_ACCEPTED: f32 = 0.77;
const LATER_DRAW_ACCEPTED: f32 = 0.5;

/// How likely a token drawn with probability `q` is to be accepted, before anything was measured.
///
/// Where p resembles q, a drawn token is accepted with min(1, p/q) whatever its own probability, so
/// even an unlikely draw deserves trust. A choice, not a fit: of two slopes tried on the bundled models
/// with one seed, the steeper one (0.4 + 0.6 q) seemed to give up sure chains for siblings too soon.
fn drawn_belief(q: f64) -> f32 {
    0.65 + 0.35 * q as f32
}

impl std::fmt::Debug for TokenTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenTree").field("nodes", &self.nodes).field("shape", &self.shape).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct First;
    impl Dice for First {
        fn pick(&mut self, _: &[f64]) -> usize {
            0
        }
    }

    fn tree(shape: Shape) -> TokenTree {
        let mut tree = TokenTree::new(10, Box::new(First));
        tree.begin(9, shape);
        tree
    }

    fn uniform(tokens: &[Token]) -> Dist {
        Dist::from_weights(tokens.iter().map(|&t| (t, 1.0))).unwrap()
    }

    const WIDE: Shape = Shape { max_nodes: 8, depth: 4, width: 2 };

    #[test]
    fn a_width_of_0_refuses_every_second_child() {
        let mut t = tree(Shape { max_nodes: 8, depth: 4, width: 0 });
        let a = t.add(NodeId::ROOT, 1, 0.5).unwrap();
        assert_eq!(t.add(NodeId::ROOT, 2, 0.4), None);
        assert_eq!(t.add(NodeId::ROOT, 1, 0.4), Some(a), "the same guess is the same child");
        let q = Dist::from_weights([(1, 1.0), (2, 1.0), (3, 1.0)]).unwrap();
        assert_eq!(t.sample(a, q.clone(), 3).count(), 1);
        t.next_part();
        assert_eq!(t.sample(a, q, 1).count(), 0, "nor does another part branch");
        assert_eq!(t.next_to_expand().len(), 1);
    }

    #[test]
    fn the_budget_is_refused_not_remembered() {
        let mut t = tree(Shape { max_nodes: 2, depth: 1, width: 1 });
        let a = t.add(NodeId::ROOT, 1, 0.5).unwrap();
        assert_eq!(t.add(a, 2, 0.5), None, "too deep");
        assert!(t.add(NodeId::ROOT, 2, 0.5).is_some());
        assert_eq!(t.add(NodeId::ROOT, 3, 0.5), None, "too many");
        assert_eq!(t.sample(NodeId::ROOT, uniform(&[4, 5]), 3).count(), 0);
    }

    struct Halves;
    impl Pace for Halves {
        fn acceptance(&self, guess: Guess) -> f32 {
            guess.belief / 2.0
        }
        fn is_worth_adding(&self, survival: f32) -> bool {
            survival >= 0.1
        }
        fn another_pass(&self, tree: &TokenTree, _: NodeId) -> bool {
            tree.passes() < 2
        }
        fn another_draw(&self, _: &TokenTree, _: f32) -> bool {
            false
        }
    }

    #[test]
    fn a_pace_judges_guesses_and_ends_growth() {
        let mut t = TokenTree::new(10, Box::new(First));
        t.begin_paced(9, WIDE, Arc::new(Halves));
        let mut named = 0;
        loop {
            let next = t.next_to_expand();
            if next.is_empty() {
                break;
            }
            named += next.len();
            next.into_iter().for_each(|n| assert!(t.add(n, 1, 0.8).is_some()));
        }
        assert_eq!((named, t.passes()), (2, 2));
        let (first, second) = (NodeId(1), NodeId(2));
        assert_eq!((t.belief(first), t.survival(first), t.survival(second)), (0.8, 0.4, 0.16000001));
        assert_eq!(t.add(second, 1, 0.8), None, "not worth it");
        t.begin(9, WIDE);
        assert_eq!(t.add(NodeId::ROOT, 1, 0.8).map(|n| t.survival(n)), Some(0.8), "a pace is for one round");
    }

    #[test]
    fn an_evaluation_is_asked_about_and_told() {
        let mut t = tree(WIDE);
        assert!(t.is_worth_evaluating(3) && !t.is_worth_evaluating(0));
        t.begin_paced(9, WIDE, Arc::new(Halves));
        assert!(t.is_worth_evaluating(3), "a pace need not know about it");
        t.next_part();
        t.evaluated(9, Duration::from_millis(2));
        assert_eq!(t.evaluations(), [Evaluation { part: 1, depth: 4, took: Duration::from_millis(2) }]);
        assert_eq!(t.passes(), 0, "it is no pass");
        t.reserve(8);
        assert!(!t.is_worth_evaluating(3), "there is no room for what it would guess");
        t.begin(9, WIDE);
        assert!(t.evaluations().is_empty());
    }

    #[test]
    fn pruning_takes_fixed_leaves_and_keeps_the_rest_as_it_was() {
        let mut t = tree(Shape { max_nodes: 8, depth: 4, width: 2 });
        let a = t.add(NodeId::ROOT, 1, 0.5).unwrap();
        let b = t.add(NodeId::ROOT, 2, 0.3).unwrap();
        let below = t.add(a, 3, 0.5).unwrap();
        let drawn = t.sample(b, uniform(&[4, 5]), 1).next().unwrap();
        let c = t.add(drawn, 6, 0.5).unwrap();
        let (round, path) = (t.round(), t.path(drawn));
        let t = t.pruned(&[NodeId::ROOT, a, b, below, drawn, c]);
        assert_ne!(t.round(), round, "the engine refuses it from a drafter");
        assert_eq!(t.ids().map(|n| t.token(n)).collect::<Vec<_>>(), [9, 2, 4], "b leads to what was drawn");
        assert_eq!((t.path(NodeId(2)), t.draw(NodeId(2)).unwrap().nodes()), (path, &[NodeId(2)][..]));
        assert_eq!(t.children(NodeId(1)).collect::<Vec<_>>(), [NodeId(2)]);
        assert_eq!((t.parent(NodeId(2)), t.children(NodeId(2)).next()), (Some(NodeId(1)), None));
    }

    #[test]
    fn a_snapshot_is_the_same_nodes_but_no_tree_to_go_on_with() {
        let mut t = tree(Shape { max_nodes: 8, depth: 4, width: 2 });
        let a = t.add(NodeId::ROOT, 1, 0.5).unwrap();
        let drawn = t.sample(a, uniform(&[4, 5]), 1).next().unwrap();
        let mut copy = t.snapshot();
        assert_ne!(copy.round(), t.round(), "the engine refuses it from a drafter");
        assert_eq!((copy.path(drawn), copy.draw(drawn).unwrap().nodes()), (t.path(drawn), &[drawn][..]));
        assert!(copy.add(NodeId::ROOT, 2, 0.5).is_none() && copy.sample(a, uniform(&[6]), 1).next().is_none());
    }

    #[test]
    fn foreign_tokens_are_refused() {
        let mut t = tree(WIDE);
        assert_eq!(t.add(NodeId::ROOT, 10, 0.5), None);
        let drawn: Vec<_> = t.sample(NodeId::ROOT, uniform(&[3, 10, 11]), 3).collect();
        assert_eq!(drawn.len(), 1);
        assert_eq!(t.token(drawn[0]), 3);
    }

    #[test]
    fn a_node_of_a_larger_tree_is_refused() {
        let mut t = tree(WIDE);
        let a = t.add(NodeId::ROOT, 1, 0.5).unwrap();
        t.begin(9, WIDE);
        assert_eq!(t.add(a, 2, 0.5), None);
        assert_eq!(t.sample(a, uniform(&[1]), 1).count(), 0);
    }

    #[test]
    fn drawn_children_come_first_and_repeats_are_merged() {
        let mut t = tree(WIDE);
        let a = t.add(NodeId::ROOT, 3, 0.5).unwrap();
        let b = t.add(NodeId::ROOT, 1, 0.5).unwrap();
        let drawn: Vec<_> = t.sample(NodeId::ROOT, uniform(&[1, 4, 5, 6]), 2).collect();
        assert_eq!(t.add(NodeId::ROOT, 4, 0.9), Some(drawn[0]));
        let order: Vec<_> = t.children(NodeId::ROOT).collect();
        assert_eq!(order, [drawn[0], drawn[1], a, b]);
        assert_eq!(t.draw(drawn[1]).unwrap().q.tokens(), [4, 5, 6], "what is there is taken out of q");
        assert!(t.draw(a).is_none());
    }

    #[test]
    fn the_budget_is_spread_over_the_passes() {
        let mut t = tree(Shape { max_nodes: 6, depth: 3, width: 2 });
        let mut expanded = Vec::new();
        loop {
            let next = t.next_to_expand();
            if next.is_empty() {
                break;
            }
            for n in next {
                expanded.push(n.index());
                t.add(n, 1, 0.6);
                t.add(n, 2, 0.3);
            }
        }
        assert_eq!(expanded, [0, 1, 3], "the best child each time");
        assert_eq!((t.len(), t.path(NodeId(5))), (7, vec![1, 1, 1]));
    }

    #[test]
    fn what_is_reserved_is_refused_until_it_is_given_back() {
        let mut t = tree(Shape { max_nodes: 3, depth: 1, width: 1 });
        assert_eq!(t.reserve(2), 0);
        assert!(t.add(NodeId::ROOT, 1, 0.5).is_some());
        assert_eq!((t.room(), t.add(NodeId::ROOT, 2, 0.5)), (0, None));
        assert_eq!(t.sample(NodeId::ROOT, uniform(&[4, 5]), 1).count(), 0);
        t.next_part();
        assert_eq!(t.room(), 0, "another part is not yet another share");
        assert_eq!(t.reserve(5), 2);
        assert_eq!(t.room(), 0, "more than there is");
        t.reserve(1);
        assert_eq!(t.room(), 1);
        t.begin(9, WIDE);
        assert_eq!(t.room(), 8);
    }

    #[test]
    fn a_later_part_keeps_its_own_branch_and_grows_from_those_of_others() {
        let shape = Shape { max_nodes: 14, depth: 4, width: 1 };
        let grow = |t: &mut TokenTree| {
            let mut passes = Vec::new();
            loop {
                let nodes = t.next_to_expand();
                if nodes.is_empty() {
                    return passes;
                }
                for &n in &nodes {
                    t.add(n, 2, 0.01);
                }
                passes.push(nodes.iter().map(|n| n.index()).collect::<Vec<_>>());
            }
        };
        let mut t = tree(shape);
        (0..4).fold(NodeId::ROOT, |node, _| t.add(node, 1, 0.99).unwrap());
        t.next_part();
        assert_eq!(grow(&mut t), [vec![0, 1, 2, 3], vec![5, 6, 7], vec![9, 10], vec![12]]);
        assert_eq!(t.path(NodeId(14)), [2, 2, 2, 2], "its own branch, though hardly believed in");
        assert_eq!(t.room(), 0);
        // With no room for more than its own, it grows its own.
        let mut t = tree(Shape { max_nodes: 8, ..shape });
        (0..4).fold(NodeId::ROOT, |node, _| t.add(node, 1, 0.99).unwrap());
        t.next_part();
        assert_eq!(grow(&mut t), [[0], [5], [6], [7]]);
        // Where it agrees with what is there, that is its own.
        let mut t = tree(Shape { max_nodes: 6, ..shape });
        (0..2).fold(NodeId::ROOT, |node, _| t.add(node, 2, 0.1).unwrap());
        t.next_part();
        grow(&mut t);
        assert_eq!(t.path(NodeId(4)), [2, 2, 2, 2]);
    }

    #[test]
    fn siblings_are_drawn_where_they_promise_more_than_another_layer() {
        let grow = |q: Dist, max_nodes| {
            let mut t = tree(Shape { max_nodes, depth: 6, width: 2 });
            loop {
                let next = t.next_to_expand();
                if next.is_empty() {
                    return t.ids().map(|n| t.depth(n)).collect::<Vec<_>>();
                }
                for n in next {
                    assert!(t.sample(n, q.clone(), 1).count() <= 1);
                }
            }
        };
        let sure = Dist::from_weights([(1, 0.98), (2, 0.02)]).unwrap();
        let unsure = Dist::from_weights((1..9).map(|t| (t, 1.0))).unwrap();
        assert_eq!(grow(sure, 6), [0, 1, 2, 3, 4, 5, 6], "a sure chain is not widened");
        assert!(grow(unsure, 6).iter().max() < Some(&6), "an unsure one is");
        assert!(grow(uniform(&[3]), 8).iter().all(|&d| d <= 6), "a point mass has no second token");
    }
}
