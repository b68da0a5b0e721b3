//! Methods that draft chains with the same drafter, and differ in nothing but how long those are.

use super::input::{Method, Report, Row};
use crate::spread::median;
use crate::theory::{Acceptance, Costs};

/// No chain beyond this is of interest, in theory or as measured.
pub const LONGEST: usize = 256;

/// One drafter, its shortest drafts first; or one adaptive method.
pub struct Family<'a> {
    /// The drafter and its files; of a single method, the method's name.
    pub name: String,
    /// By draft length, each length once.
    pub members: Vec<(usize, &'a Method)>,
}

/// All families of a report in the order of their first methods. What drafts trees, or nothing, has none,
/// nor has what dice accepted.
pub fn families(report: &Report) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    let real = report.methods().iter().filter(|method| method.synthetic.is_none());
    for method in real.filter(|m| m.drafts_chains() && guesses(m) >= FEW) {
        let Some(shape) = method.shape.as_ref().filter(|shape| shape.depth <= LONGEST) else { continue };
        let alike = |family: &&mut Family<'_>| family.members.iter().all(|(_, other)| are_alike(other, method));
        match families.iter_mut().find(alike) {
            Some(family) => family.members.push((shape.depth, method)),
            None => families.push(Family { name: method.name.clone(), members: vec![(shape.depth, method)] }),
        }
    }
    for family in &mut families {
        family.members.sort_by_key(|(k, _)| *k);
        family.members.dedup_by_key(|(k, _)| *k);
        if let [(_, first), _, ..] = family.members[..] {
            family.name = first.drafter_name();
        }
    }
    families
}

/// Fewer guesses say neither how often they are right nor what they cost.
const FEW: usize = 50;

fn guesses(method: &Method) -> usize {
    method.overall.as_ref().map_or(0, |row| row.summary.drafted)
}

fn are_alike(a: &Method, b: &Method) -> bool {
    !a.is_adaptive() && !b.is_adaptive() && a.drafter == b.drafter && a.settings == b.settings
}

impl Family<'_> {
    /// The longest drafts.
    pub fn longest(&self) -> usize {
        self.members.last().map_or(0, |(k, _)| *k)
    }

    /// The overall row of each length.
    pub fn rows(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.members.iter().filter_map(|(k, m)| Some((*k, m.overall.as_ref()?)))
    }

    /// The length that was fastest, and its speed.
    pub fn best(&self) -> Option<(usize, f64)> {
        let speeds = self.rows().filter_map(|(k, row)| Some((k, row.ratio?)));
        speeds.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// What its guesses cost: of several lengths, the median.
    pub fn costs(&self, report: &Report) -> Costs {
        let drafts = self.rows().filter_map(|(_, row)| row.round_cost?.draft_per_node);
        let draft = median(&drafts.collect::<Vec<f64>>()).unwrap_or(0.0).max(0.0);
        Costs { draft, passes: report.passes() }
    }

    /// The acceptance of the longest drafts: by position, and as one α.
    pub fn acceptance(&self) -> Option<(Acceptance, Acceptance)> {
        let (_, longest) = self.rows().last()?;
        let same = Acceptance::same(&longest.summary.acceptance_by_position);
        longest.summary.by_position().zip(same)
    }
}
