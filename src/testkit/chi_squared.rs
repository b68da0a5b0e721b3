//! Pearson's χ² test: do counts follow the law they should?

/// Sums of (observed − expected)² / expected, over independent tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChiSquared {
    statistic: f64,
    degrees: f64,
}

impl ChiSquared {
    /// Add a table of counts that should follow `law` (probabilities in the same order). Cells that
    /// expect fewer than five are pooled, as the approximation needs.
    pub fn add(&mut self, counts: &[u64], law: &[f64]) {
        let n: u64 = counts.iter().sum();
        let (mut cells, mut pool) = (0.0, (0.0, 0.0));
        for (&count, &p) in counts.iter().zip(law) {
            let expected = p * n as f64;
            if expected < 5.0 {
                pool = (pool.0 + count as f64, pool.1 + expected);
            } else {
                self.statistic += (count as f64 - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        if pool.1 >= 5.0 {
            self.statistic += (pool.0 - pool.1).powi(2) / pool.1;
            cells += 1.0;
        } else if pool.0 > 20.0 {
            self.statistic = f64::INFINITY; // much where next to nothing was expected
        }
        self.degrees += f64::max(cells - 1.0, 0.0);
    }

    /// How many standard deviations above expectation the statistic lies (Wilson and Hilferty's cube
    /// root transformation).
    pub fn z(&self) -> f64 {
        if self.degrees == 0.0 {
            return 0.0;
        }
        let spread = 2.0 / (9.0 * self.degrees);
        ((self.statistic / self.degrees).cbrt() - (1.0 - spread)) / spread.sqrt()
    }

    /// Whether the counts contradict the law with p < 1e-6.
    pub fn contradicts(&self) -> bool {
        self.z() > 4.753
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_tables() {
        // The 1e-6 quantile of χ² with 10 degrees of freedom is 48.5 (to 0.1 by this approximation).
        let at = |statistic| ChiSquared { statistic, degrees: 10.0 }.contradicts();
        assert!(!at(47.5) && at(49.5));
    }

    #[test]
    fn counts_where_none_are_expected_contradict() {
        let mut chi = ChiSquared::default();
        chi.add(&[1000, 900, 100], &[0.5, 0.5, 0.0]);
        assert!(chi.contradicts());
    }
}
