//! Dice that visit every outcome: the law of a whole round is computed, not estimated.

use std::sync::{Arc, Mutex};

use foretoken_drafter::Dice;

/// Run `round` once for every possible sequence of choices of its dice, with the probability of that
/// sequence. The handle can be cloned, so that several parties share one enumeration.
pub fn for_each_outcome(mut round: impl FnMut(&AllDice) -> f64) -> f64 {
    let dice = AllDice(Arc::new(Mutex::new(Script::default())));
    let mut total = 0.0;
    loop {
        total += round(&dice);
        let Ok(mut script) = dice.0.lock() else { return total };
        if !script.advance() {
            return total;
        }
    }
}

/// A handle on the dice of an enumeration.
#[derive(Clone)]
pub struct AllDice(Arc<Mutex<Script>>);

impl AllDice {
    /// Probability of the choices made so far in this run.
    pub fn probability(&self) -> f64 {
        self.0.lock().map_or(0.0, |script| script.probability())
    }
}

impl Dice for AllDice {
    fn pick(&mut self, weights: &[f64]) -> usize {
        self.0.lock().map_or(0, |mut script| script.pick(weights))
    }
}

#[derive(Default)]
struct Script {
    choices: Vec<Choice>,
    cursor: usize,
}

struct Choice {
    weights: Vec<f64>,
    taken: usize,
}

impl Script {
    fn pick(&mut self, weights: &[f64]) -> usize {
        if self.cursor == self.choices.len() {
            let taken = weights.iter().position(|&w| w > 0.0).unwrap_or(0);
            self.choices.push(Choice { weights: weights.to_vec(), taken });
        }
        self.cursor += 1;
        self.choices[self.cursor - 1].taken
    }

    fn probability(&self) -> f64 {
        self.choices.iter().map(|c| c.weights[c.taken] / c.weights.iter().sum::<f64>()).product()
    }

    /// The next outcome in depth-first order; `false` after the last.
    fn advance(&mut self) -> bool {
        self.cursor = 0;
        while let Some(choice) = self.choices.last_mut() {
            let rest = &choice.weights[choice.taken + 1..];
            if let Some(step) = rest.iter().position(|&w| w > 0.0) {
                choice.taken += step + 1;
                return true;
            }
            self.choices.pop();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_once_and_probabilities_sum_to_one() {
        let mut seen = Vec::new();
        let total = for_each_outcome(|dice| {
            let mut dice = dice.clone();
            let a = dice.pick(&[0.5, 0.0, 1.5]);
            let b = if a == 2 { dice.pick(&[1.0, 1.0]) } else { 9 };
            seen.push((a, b));
            dice.probability()
        });
        assert_eq!(seen, [(0, 9), (2, 0), (2, 1)]);
        assert!((total - 1.0).abs() < 1e-15);
    }
}
