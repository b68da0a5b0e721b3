//! The drafter itself: one index per text, brought up to date from the context, archives of other texts, and a tree
//! grown from all of them best first. It decides nothing about acceptance and never looks at a model.

use std::collections::HashMap;
use std::ops::Range;

use foretoken_drafter::{Commit, DraftError, DraftRequest, Drafter, Frontier, Needs, NodeId, SeqId, Token, TokenTree};

use crate::archive::{Archive, Texts};
use crate::history::History;
use crate::predict::{predict, Trust, Vote, MAX_SOURCES, MAX_VOTES};
use crate::settings::Settings;
use crate::suffixes::{Occurrence, SuffixIndex, Walk};
use crate::table::Table;

/// Guesses what followed the same tokens earlier in the text, or in other texts that it was given.
///
/// It learns from [`commit`](Drafter::commit), and [`draft`](Drafter::draft) works without it as well:
/// whatever the context has more, or other, than was committed is caught up with. Only what was committed
/// in rounds is kept in a history.
pub struct NgramDrafter {
    settings: Settings,
    texts: HashMap<SeqId, Text>,
    archives: Vec<Archive>,
    scratch: Scratch,
}

impl NgramDrafter {
    /// A drafter that has seen no text. It opens no file: those that the settings name are opened by
    /// [`build`](crate::build) and given to it.
    ///
    /// # Errors
    /// A setting is out of range.
    pub fn new(settings: Settings) -> Result<NgramDrafter, DraftError> {
        let settings = settings.checked()?;
        Ok(NgramDrafter { settings, texts: HashMap::new(), archives: Vec::new(), scratch: Scratch::default() })
    }

    /// The same with a table to guess from.
    pub fn with_table(mut self, table: Table) -> NgramDrafter {
        self.archives.push(Archive::new(Texts::Table(table)));
        self
    }

    /// The same with a history to guess from and to keep texts in.
    pub fn with_history(mut self, history: History) -> NgramDrafter {
        self.archives.push(Archive::new(Texts::History(history)));
        self
    }

    /// Bytes on the heap for all texts and the history: what is allocated, whether in use or not. Tables are not
    /// counted.
    pub fn heap_bytes(&self) -> usize {
        let texts = self.texts.values().map(|text| size_of::<(SeqId, Text)>() + text.heap_bytes());
        let archives = self.archives.iter().map(|archive| size_of::<Archive>() + archive.heap_bytes());
        texts.chain(archives).sum::<usize>() + self.scratch.heap_bytes()
    }

    fn follow(&mut self, seq: SeqId, context: &[Token]) -> &mut Text {
        let text = self.texts.entry(seq).or_insert_with(|| Text::new(self.settings.max_match));
        text.follow(context, &mut self.archives);
        text
    }

    /// Put the text into the history, if there is one and something was written. What cannot be put there is lost: a
    /// full disk is no reason to stop.
    fn keep(&mut self, text: &Text) {
        for archive in &mut self.archives {
            if let (Some(kept), Texts::History(history)) = (text.to_keep(), &mut archive.texts) {
                let _ = history.append(kept);
            }
        }
    }
}

impl Drafter for NgramDrafter {
    fn needs(&self) -> Needs {
        let has_history = self.archives.iter().any(|archive| matches!(archive.texts, Texts::History(_)));
        Needs { new_seed: has_history, ..Needs::default() }
    }

    fn draft(&mut self, request: &DraftRequest<'_>, tree: &mut TokenTree) -> Result<(), DraftError> {
        if tree.room() == 0 || tree.shape().depth == 0 {
            return Ok(());
        }
        self.follow(request.seq, request.context);
        let NgramDrafter { settings, texts, archives, scratch } = self;
        let Some(text) = texts.get_mut(&request.seq) else { return Ok(()) };
        Growth { text, archives, settings, scratch, tree }.grow();
        text.ask(&scratch.asked);
        Ok(())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), DraftError> {
        let text = self.follow(commit.seq, commit.context);
        text.committed = commit.context.len();
        if commit.round.is_some() {
            let start = commit.context.len().saturating_sub(commit.n_new);
            text.written_from = Some(text.written_from.map_or(start, |from| from.min(start)));
        }
        Ok(())
    }

    fn end(&mut self, seq: SeqId) {
        if let Some(text) = self.texts.remove(&seq) {
            self.keep(&text);
        }
    }
}

impl Drop for NgramDrafter {
    /// A text that is under way when the run stops is kept as far as it got.
    fn drop(&mut self) {
        for text in std::mem::take(&mut self.texts).into_values() {
            self.keep(&text);
        }
    }
}

/// What is kept of one text.
struct Text {
    index: SuffixIndex,
    trust: Trust,
    /// What the archives expected after the last draft's context, which had so many tokens.
    asked: Vec<Vote>,
    asked_at: usize,
    /// Where the first token stands that came out of a round: before it is the prompt.
    written_from: Option<usize>,
    /// How many tokens are final. Behind them may stand what a draft model was asked about.
    committed: usize,
}

impl Text {
    fn new(max_match: usize) -> Text {
        let index = SuffixIndex::new(max_match);
        Text { index, trust: Trust::default(), asked: Vec::new(), asked_at: 0, written_from: None, committed: 0 }
    }

    /// Make the index that of `context`. Costs what is new; a context that shares only a part of its
    /// beginning with the text so far costs what differs.
    fn follow(&mut self, context: &[Token], archives: &mut [Archive]) {
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
        if self.index.tokens().len() < self.asked_at {
            self.asked.clear();
        }
        for &token in context.get(self.index.tokens().len()..).unwrap_or_default() {
            // An earlier place than the last, so a token follows it.
            if let Some(longest) = self.index.longest() {
                self.trust.record(longest.len, self.index.tokens()[longest.end as usize + 1] == token);
            }
            if self.index.tokens().len() == self.asked_at {
                for vote in self.asked.drain(..) {
                    if let Some(archive) = archive_of(vote.source).and_then(|i| archives.get_mut(i)) {
                        archive.trust.record(vote.len, vote.token == token);
                    }
                }
            }
            self.index.append(token);
        }
    }

    /// Remember what the archives expect next.
    fn ask(&mut self, votes: &[Vote]) {
        self.asked.clear();
        self.asked.extend(votes);
        self.asked_at = self.index.tokens().len();
    }

    /// What was written, and so much of the prompt before it as a match may go back.
    fn to_keep(&self) -> Option<&[Token]> {
        let from = self.written_from?.saturating_sub(self.index.max_match());
        let tokens = self.index.tokens();
        tokens.get(from..self.committed.min(tokens.len())).filter(|text| !text.is_empty())
    }

    fn heap_bytes(&self) -> usize {
        self.index.heap_bytes() + self.asked.capacity() * size_of::<Vote>()
    }
}

/// The source that is the text itself; the archives follow.
const CONTEXT: u32 = 0;

/// Which archive a source is.
fn archive_of(source: u32) -> Option<usize> {
    (source as usize).checked_sub(1)
}

/// One draft: the tree grows by its likeliest branch, again and again, until it is full or there is
/// nothing more to guess.
///
/// The sum of the survivals of its nodes is the expected number of accepted tokens, SuffixDecoding's score; so the
/// sources need not be compared as wholes: each branch is ranked by what all of them say together.
struct Growth<'a> {
    text: &'a Text,
    archives: &'a [Archive],
    settings: &'a Settings,
    scratch: &'a mut Scratch,
    tree: &'a mut TokenTree,
}

impl Growth<'_> {
    fn grow(mut self) {
        self.scratch.clear();
        self.expand(NodeId::ROOT, 0..0, 1.0);
        while let Some((survival, branch)) = self.scratch.frontier.pop() {
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
                self.expand(node, occurrences, survival);
            }
        }
    }

    /// The token at `index` of a source; `None` at the end of a text.
    fn token(&self, source: u32, index: u32) -> Option<Token> {
        match archive_of(source) {
            None => self.text.index.tokens().get(index as usize).copied(),
            Some(archive) => self.archives.get(archive)?.token(index),
        }
    }

    /// The occurrences among `range` that went on with `token`, each one token on, if something follows there.
    fn narrow(&mut self, range: Range<usize>, token: Token) -> Range<usize> {
        let longest = self.text.index.max_match() as u32;
        let start = self.scratch.occurrences.len();
        for i in range {
            let Found { source, at, next } = self.scratch.occurrences[i];
            let Some(end) = at.end.checked_add(1).filter(|_| next == token) else { continue };
            if let Some(next) = end.checked_add(1).and_then(|index| self.token(source, index)) {
                let at = Occurrence { end, len: (at.len + 1).min(longest) };
                self.scratch.occurrences.push(Found { source, at, next });
            }
        }
        start..self.scratch.occurrences.len()
    }

    /// Put the branches of `node` on the frontier, at most as many as the tree is wide. `occurrences`
    /// are those of the parent that led here; too few, and all sources are asked for those of this node's
    /// own suffix, which may be shorter.
    fn expand(&mut self, node: NodeId, mut occurrences: Range<usize>, survival: f32) {
        if occurrences.len() < FEW {
            occurrences = self.search(node);
        }
        let Growth { text, archives, scratch, .. } = self;
        scratch.votes.clear();
        let votes = scratch.occurrences[occurrences.clone()].iter();
        scratch.votes.extend(votes.map(|&Found { source, at, next }| Vote { source, len: at.len, token: next }));
        let trust = |source, len| {
            let archive = archive_of(source).and_then(|i| archives.get(i));
            archive.map_or(&text.trust, |archive| &archive.trust).of(len)
        };
        predict(&scratch.votes, trust, &mut scratch.beliefs);
        for &(token, belief) in scratch.beliefs.iter().take(self.tree.width()) {
            if belief >= self.settings.min_belief {
                let (survival, occurrences) = (survival * belief, occurrences.clone());
                scratch.frontier.push(survival, Branch { parent: node, token, belief, occurrences });
            }
        }
    }

    fn search(&mut self, node: NodeId) -> Range<usize> {
        let index = &self.text.index;
        let past = &mut self.scratch.past;
        past.clear();
        let mut at = node;
        while let Some(parent) = self.tree.parent(at) {
            past.push(self.tree.token(at));
            at = parent;
        }
        past.extend(index.tokens().iter().rev().take(index.max_match()));
        let start = self.scratch.occurrences.len();
        for source in 0..=self.archives.len().min(MAX_SOURCES - 1) as u32 {
            self.search_in(source);
            let found = self.scratch.occurrences.last().filter(|found| found.source == source);
            if node == NodeId::ROOT && source != CONTEXT && found.is_some() {
                let first = self.scratch.occurrences[start..].iter().find(|found| found.source == source);
                let vote = first.map(|&Found { at, next, .. }| Vote { source, len: at.len, token: next });
                self.scratch.asked.extend(vote);
            }
        }
        start..self.scratch.occurrences.len()
    }

    /// Add what `source` has for the past in the scratch space.
    fn search_in(&mut self, source: u32) {
        let Scratch { past, walk, found, .. } = &mut *self.scratch;
        found.clear();
        let least = self.settings.min_match;
        match archive_of(source) {
            None => self.text.index.search(past, least, OCCURRENCES, walk, found),
            Some(archive) => self.archives[archive].search(past, least, OCCURRENCES, walk, found),
        }
        for i in 0..self.scratch.found.len() {
            let at = self.scratch.found[i];
            if let Some(next) = at.end.checked_add(1).and_then(|index| self.token(source, index)) {
                self.scratch.occurrences.push(Found { source, at, next });
            }
        }
    }
}

/// An occurrence, where it is, and what followed it.
#[derive(Clone, Copy, Debug)]
struct Found {
    source: u32,
    at: Occurrence,
    next: Token,
}

/// A child that may be added, and the occurrences of its parent's suffix, by their range in the scratch
/// space.
#[derive(Clone, Debug)]
struct Branch {
    parent: NodeId,
    token: Token,
    belief: f32,
    occurrences: Range<usize>,
}

/// What a draft needs for a moment, kept for its memory.
#[derive(Default)]
struct Scratch {
    frontier: Frontier<Branch>,
    occurrences: Vec<Found>,
    found: Vec<Occurrence>,
    past: Vec<Token>,
    votes: Vec<Vote>,
    asked: Vec<Vote>,
    beliefs: Vec<(Token, f32)>,
    walk: Walk,
}

impl Scratch {
    fn clear(&mut self) {
        self.frontier.clear();
        self.occurrences.clear();
        self.asked.clear();
    }

    fn heap_bytes(&self) -> usize {
        self.frontier.heap_bytes()
            + self.occurrences.capacity() * size_of::<Found>()
            + self.found.capacity() * size_of::<Occurrence>()
            + self.past.capacity() * size_of::<Token>()
            + (self.votes.capacity() + self.asked.capacity()) * size_of::<Vote>()
            + self.beliefs.capacity() * size_of::<(Token, f32)>()
            + self.walk.heap_bytes()
    }
}

/// Most occurrences of a source that are counted for a node. With 32, 0.004 to 0.009 more tokens were
/// accepted per round of 4 to 16 nodes, at a quarter more time.
const OCCURRENCES: usize = 16;
const _: () = assert!(OCCURRENCES * MAX_SOURCES <= MAX_VOTES);

/// With fewer inherited occurrences than this, a node looks for its own. With 4, up to 0.006
/// more were accepted per round, at twice the time, and beliefs grew too high: what a node inherits
/// are the longest matches already.
const FEW: usize = 1;

/// How many tokens are compared to tell whether a context continues the text.
const TAIL: usize = 16;

#[cfg(test)]
#[path = "../benches/texts.rs"]
mod texts;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Keep;
    use foretoken_drafter::{Dice, Dist, Law, Shape};
    use proptest::prelude::*;

    const SEQ: SeqId = SeqId(0);
    const WIDE: Shape = Shape { max_nodes: 16, depth: 16, width: 3 };
    const ALL: Settings = Settings {
        min_match: 1,
        max_match: 8,
        min_belief: 0.0,
        table: Vec::new(),
        history: Keep::No,
        history_limit: 1_000_000,
    };

    struct NoDice;

    impl Dice for NoDice {
        fn pick(&mut self, _: &[f64]) -> usize {
            0
        }
    }

    struct NoLaw;

    impl Law for NoLaw {
        fn is_greedy(&self) -> bool {
            true
        }

        fn dist(&self, _: &[f32], _: &[Token], _: &[Token]) -> Dist {
            Dist::point(0)
        }

        fn top(&self, _: &[f32], _: &[Token], _: &[Token], _: usize) -> Vec<(Token, f32)> {
            Vec::new()
        }
    }

    fn drafter(settings: Settings) -> NgramDrafter {
        NgramDrafter::new(settings).unwrap()
    }

    fn commit(drafter: &mut NgramDrafter, seq: SeqId, context: &[Token]) {
        drafter
            .commit(&Commit { seq, context, n_new: context.len(), round: None, defer: false, hidden: None })
            .unwrap();
    }

    fn draft(drafter: &mut NgramDrafter, seq: SeqId, context: &[Token], shape: Shape) -> TokenTree {
        let mut tree = TokenTree::new(1000, Box::new(NoDice));
        tree.begin(context.last().copied().unwrap_or(0), shape);
        drafter.draft(&DraftRequest { seq, context, law: &NoLaw }, &mut tree).unwrap();
        tree
    }

    fn guess(settings: Settings, context: &[Token], shape: Shape) -> TokenTree {
        draft(&mut drafter(settings), SEQ, context, shape)
    }

    /// Every node as (path, survival), in creation order.
    fn nodes(tree: &TokenTree) -> Vec<(Vec<Token>, f32)> {
        tree.ids().skip(1).map(|n| (tree.path(n), tree.survival(n))).collect()
    }

    fn children(tree: &TokenTree, node: NodeId) -> Vec<Token> {
        tree.children(node).map(|c| tree.token(c)).collect()
    }

    #[test]
    fn agreement_is_a_chain() {
        let tree = guess(ALL, &[1, 2, 3, 4, 5, 6, 9, 1, 2, 3], Shape { max_nodes: 4, ..WIDE });
        assert_eq!(nodes(&tree).last().map(|n| &n.0[..]), Some(&[4, 5, 6, 9][..]));
    }

    #[test]
    fn branches_are_ranked_by_count() {
        let text = [1, 2, 5, 11, 1, 2, 6, 12, 1, 2, 5, 13, 1, 2, 7, 14, 1, 2, 6, 15, 1, 2, 5, 16, 1, 2];
        let tree = guess(ALL, &text, WIDE);
        assert_eq!(children(&tree, NodeId::ROOT), [5, 6, 7]);
        let tree = guess(ALL, &text, Shape { width: 2, ..WIDE });
        assert_eq!(children(&tree, NodeId::ROOT), [5, 6]);
    }

    #[test]
    fn the_longest_match_is_preferred() {
        let text = [8, 3, 1, 2, 5, 0, 1, 2, 6, 0, 1, 2, 6, 0, 8, 3, 1, 2];
        assert_eq!(children(&guess(ALL, &text, WIDE), NodeId::ROOT), [5, 6]);
    }

    #[test]
    fn a_short_match_or_a_weak_belief_is_no_guess() {
        let text = [1, 2, 3, 4, 9, 2, 3];
        assert!(!guess(Settings { min_match: 2, ..ALL }, &text, WIDE).is_empty());
        assert!(guess(Settings { min_match: 3, ..ALL }, &text, WIDE).is_empty());
        assert!(guess(Settings { min_belief: 0.9, ..ALL }, &text, WIDE).is_empty());
    }

    #[test]
    fn one_token_repeated_is_a_full_chain() {
        let tree = guess(Settings::default(), &[7; 300], WIDE);
        let (path, survival) = nodes(&tree).pop().unwrap();
        assert_eq!(path, [7; 16]);
        assert!(survival > 0.8, "{survival}");
    }

    #[test]
    fn tokens_outside_the_vocabulary_are_passed_over() {
        let text = [1, 1000, 2, 1, 1000, 2, 1, 999, 3, 1];
        assert_eq!(children(&guess(ALL, &text, WIDE), NodeId::ROOT), [999]);
        assert!(guess(ALL, &[u32::MAX; 9], WIDE).is_empty());
    }

    #[test]
    fn the_smallest_contexts_are_no_guess() {
        for context in [&[][..], &[1], &[1, 2]] {
            assert!(guess(ALL, context, WIDE).is_empty());
        }
        assert!(guess(ALL, &[1, 1, 1], Shape { max_nodes: 0, ..WIDE }).is_empty());
        assert!(guess(ALL, &[1, 1, 1], Shape { depth: 0, ..WIDE }).is_empty());
    }

    #[test]
    fn texts_do_not_mix_and_end() {
        let (a, b) = ([1, 2, 3, 1, 2], [1, 2, 4, 1, 2]);
        let mut both = drafter(ALL);
        commit(&mut both, SeqId(1), &a);
        commit(&mut both, SeqId(2), &b);
        assert_eq!(nodes(&draft(&mut both, SeqId(1), &a, WIDE)), nodes(&guess(ALL, &a, WIDE)));
        assert_eq!(nodes(&draft(&mut both, SeqId(2), &b, WIDE)), nodes(&guess(ALL, &b, WIDE)));
        both.end(SeqId(1));
        both.end(SeqId(2));
        both.end(SeqId(3));
        assert!(both.texts.is_empty());
    }

    fn table(texts: &[&[Token]]) -> Table {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("table");
        let texts = texts.iter().map(|text| Ok::<_, std::convert::Infallible>(text.to_vec()));
        let go_on = &mut |_| std::ops::ControlFlow::Continue(());
        crate::table::Build::default().write(texts, &out, go_on).unwrap();
        Table::open(Box::new(std::fs::read(out).unwrap()), 0).unwrap()
    }

    fn history(folder: &tempfile::TempDir) -> History {
        History::open(&folder.path().join("history"), 0, 1_000, 8).unwrap()
    }

    /// A text as the engine tells of it: the prompt, then rounds of one token.
    fn generate(drafter: &mut NgramDrafter, seq: SeqId, prompt: &[Token], written: &[Token]) {
        commit(drafter, seq, prompt);
        let mut context = prompt.to_vec();
        for &token in written {
            let tree = draft(drafter, seq, &context, WIDE);
            context.push(token);
            let round = Some(foretoken_drafter::Outcome { tree: &tree, accepted: &[], top: &[] });
            drafter.commit(&Commit { seq, context: &context, n_new: 1, round, defer: false, hidden: None }).unwrap();
        }
    }

    #[test]
    fn other_texts_are_guessed_from() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = history(&folder);
        history.append(&[1, 2, 3, 4, 5]).unwrap();
        let other = table(&[&[9, 9], &[1, 2, 3, 4, 5]]);
        for mut drafter in [drafter(ALL).with_history(history), drafter(ALL).with_table(other)] {
            let tree = draft(&mut drafter, SEQ, &[7, 2, 3], WIDE);
            assert_eq!(nodes(&tree).last().map(|node| &node.0[..]), Some(&[4, 5][..]), "up to the end of that text");
        }
    }

    #[test]
    fn sources_are_ranked_together() {
        // The context says 4 once, two tables say 5 after a longer match.
        let context = [8, 3, 4, 0, 1, 2, 3];
        let other: &[&[Token]] = &[&[1, 2, 3, 5, 6]];
        let mut alone = drafter(ALL);
        assert_eq!(children(&draft(&mut alone, SEQ, &context, WIDE), NodeId::ROOT), [4]);
        let mut both = drafter(ALL).with_table(table(other)).with_table(table(other));
        let tree = draft(&mut both, SEQ, &context, WIDE);
        assert_eq!(children(&tree, NodeId::ROOT), [5, 4]);
        assert!(nodes(&tree).is_sorted_by(|a, b| a.1 >= b.1));
    }

    #[test]
    fn an_archive_that_is_wrong_is_trusted_less() {
        let text: Vec<Token> = (0..200).map(|i| 100 + i).collect();
        let shuffled: Vec<Token> = text.iter().flat_map(|&token| [token, 7]).collect();
        let belief = |drafter: &mut NgramDrafter| {
            let tree = draft(drafter, SeqId(9), &[150], WIDE);
            nodes(&tree).first().map_or(0.0, |node| node.1)
        };
        let mut right = drafter(ALL).with_table(table(&[&text]));
        let mut wrong = drafter(ALL).with_table(table(&[&shuffled]));
        let before = belief(&mut wrong);
        assert_eq!(before, belief(&mut right));
        generate(&mut wrong, SEQ, &text[..1], &text[1..]);
        generate(&mut right, SEQ, &text[..1], &text[1..]);
        assert!(belief(&mut wrong) < before / 2.0, "{} of {before}", belief(&mut wrong));
        wrong.end(SEQ);
        assert!(belief(&mut wrong) < before / 2.0, "also in the next text");
    }

    #[test]
    fn what_was_written_is_kept_with_what_led_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let prompt: Vec<Token> = (20..60).collect();
        let kept = || {
            let mut drafter = drafter(ALL).with_history(history(&folder));
            children(&draft(&mut drafter, SEQ, &[59], WIDE), NodeId::ROOT)
        };
        let mut first = drafter(ALL).with_history(history(&folder));
        commit(&mut first, SEQ, &prompt);
        first.end(SEQ);
        assert!(kept().is_empty(), "a prompt alone is not kept");
        generate(&mut first, SEQ, &prompt, &[1, 2]);
        assert!(kept().is_empty(), "a text is kept when it ends");
        first.end(SEQ);
        assert_eq!(kept(), [1]);
        assert_eq!(history(&folder).n_tokens(), 8 + 2 + 1);
        assert_eq!(children(&draft(&mut first, SEQ, &[59], WIDE), NodeId::ROOT), [1], "the same run learns of it");
        generate(&mut first, SeqId(2), &prompt, &[3, 4]);
        drop(first);
        assert_eq!(kept(), [3, 1], "a text under way is kept as far as it got");
    }

    #[test]
    fn another_context_is_caught_up_with() {
        let mut drafter = drafter(ALL);
        let text: Vec<Token> = (0..60).map(|i| i * i % 7).collect();
        commit(&mut drafter, SEQ, &text);
        let mut other = text.clone();
        other[50] = 9;
        for context in [&text[..40], &text, &other, &[5, 6, 5], &[], &text] {
            draft(&mut drafter, SEQ, context, WIDE);
            assert_eq!(drafter.texts[&SEQ].index.tokens(), context);
        }
    }

    #[test]
    fn a_token_costs_at_most_64_bytes() {
        for (name, text) in texts::TEXTS {
            let text = text(140_000);
            // 131 073 is where every vector has just doubled.
            for n in [1_000, 10_000, 100_000, 131_073] {
                let mut drafter = drafter(Settings::default());
                commit(&mut drafter, SEQ, &text[..n]);
                draft(&mut drafter, SEQ, &text[..n], WIDE);
                let per_token = drafter.heap_bytes() as f64 / n as f64;
                println!("{name}, {n} tokens: {per_token:.1} bytes per token");
                assert!(per_token <= 64.0, "{name}, {n} tokens: {per_token}");
            }
        }
    }

    proptest! {
        #[test]
        fn trees_keep_to_their_shape_and_grow_best_first(
            context in prop::collection::vec(0u32..4, 0..80),
            max_nodes in 0usize..20, depth in 0usize..6, width in 0usize..4,
            min_match in 1usize..4, min_belief in 0f32..0.5,
        ) {
            let shape = Shape { max_nodes, depth, width };
            let tree = guess(Settings { min_match, max_match: 5, min_belief, ..ALL }, &context, shape);
            prop_assert!(tree.len() <= max_nodes + 1);
            prop_assert!(nodes(&tree).is_sorted_by(|a, b| a.1 >= b.1));
            for node in tree.ids() {
                prop_assert!(tree.depth(node) <= depth);
                prop_assert!(tree.children(node).count() <= width.max(1));
                let below: f32 = tree.children(node).map(|c| tree.survival(c)).sum();
                prop_assert!(below < tree.survival(node));
                for child in tree.children(node) {
                    prop_assert!(tree.survival(child) >= tree.survival(node) * min_belief * 0.999);
                }
            }
        }

        #[test]
        fn token_by_token_is_as_at_once(context in prop::collection::vec(0u32..4, 1..80), step in 1usize..9) {
            let mut steps = drafter(ALL);
            for end in (1..context.len()).step_by(step) {
                commit(&mut steps, SEQ, &context[..end]);
            }
            let tree = draft(&mut steps, SEQ, &context, WIDE);
            prop_assert_eq!(nodes(&tree), nodes(&guess(ALL, &context, WIDE)));
        }
    }
}
