//! In which order are a tree's nodes worth keeping? What must stay, then the likeliest. [`super::Control`] decides how many.

use foretoken_drafter::{NodeId, TokenTree};

/// A tree's nodes in that order. Every beginning of it from `fixed_from` on is a tree.
pub struct Order {
    /// Every node but the root.
    pub nodes: Vec<NodeId>,
    /// How likely the walk reaches them.
    pub survivals: Vec<f64>,
    /// How many must stay: what was drawn, and the way to it.
    pub fixed_from: usize,
}

impl Order {
    /// The order of this tree.
    pub fn of(tree: &TokenTree) -> Order {
        let mut must_stay = vec![false; tree.len()];
        for node in tree.ids().rev().filter(|&node| node != NodeId::ROOT) {
            if tree.draw(node).is_some() {
                must_stay[node.index()] = true;
            }
            if let (true, Some(parent)) = (must_stay[node.index()], tree.parent(node)) {
                must_stay[parent.index()] = true;
            }
        }
        let mut nodes: Vec<NodeId> = tree.ids().skip(1).collect();
        nodes.sort_by(|&a, &b| {
            let stays = must_stay[b.index()].cmp(&must_stay[a.index()]);
            stays.then(tree.survival(b).total_cmp(&tree.survival(a))).then(a.cmp(&b))
        });
        let survivals = nodes.iter().map(|&node| f64::from(tree.survival(node))).collect();
        let fixed_from = nodes.iter().filter(|node| must_stay[node.index()]).count();
        Order { nodes, survivals, fixed_from }
    }

    /// A node to come, of such a survival, takes its place behind what must stay.
    pub fn insert(&mut self, survival: f64) {
        let place = self.survivals[self.fixed_from..].partition_point(|&other| other >= survival);
        self.survivals.insert(self.fixed_from + place, survival);
    }

    /// How many of the first `n` the walk is expected to reach.
    pub fn sum(&self, n: usize) -> f64 {
        self.survivals[..n].iter().sum()
    }
}
