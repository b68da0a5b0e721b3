//! Branches that a tree could still grow, best first: for drafters that grow by their likeliest guess.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A queue that gives back what is likeliest; among equals, what came first.
#[derive(Clone, Debug)]
pub struct Frontier<T> {
    heap: BinaryHeap<Entry<T>>,
    born: u32,
}

impl<T> Default for Frontier<T> {
    fn default() -> Frontier<T> {
        Frontier { heap: BinaryHeap::new(), born: 0 }
    }
}

impl<T> Frontier<T> {
    /// Add a branch that would be reached with probability `survival`.
    pub fn push(&mut self, survival: f32, branch: T) {
        self.heap.push(Entry { survival, born: self.born, branch });
        self.born = self.born.wrapping_add(1);
    }

    /// Take the likeliest branch, with its survival.
    pub fn pop(&mut self) -> Option<(f32, T)> {
        self.heap.pop().map(|entry| (entry.survival, entry.branch))
    }

    /// Forget every branch, keep the memory.
    pub fn clear(&mut self) {
        self.heap.clear();
        self.born = 0;
    }

    /// Bytes on the heap, whether in use or not.
    pub fn heap_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<Entry<T>>()
    }
}

#[derive(Clone, Debug)]
struct Entry<T> {
    survival: f32,
    born: u32,
    branch: T,
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        self.survival.total_cmp(&other.survival).then(other.born.cmp(&self.born))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_comes_first_and_among_equals_the_oldest() {
        let mut frontier = Frontier::default();
        for (survival, name) in [(0.5, 'a'), (0.9, 'b'), (0.5, 'c'), (f32::NEG_INFINITY, 'd')] {
            frontier.push(survival, name);
        }
        let order: Vec<char> = std::iter::from_fn(|| frontier.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, ['b', 'a', 'c', 'd']);
        frontier.push(0.1, 'e');
        frontier.clear();
        assert!(frontier.pop().is_none() && frontier.heap_bytes() > 0);
    }
}
