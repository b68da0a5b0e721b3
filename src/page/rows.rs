//! A drawing with a name at the left of each row and one axis of numbers below: dots with intervals, or bars end to end.

use super::markup::{element, Element};
use super::plot::{canvas, dot, line, rectangle};
use super::room::{label, shortened, Side};
use super::scale::Scale;

/// A drawing of rows.
pub struct Rows {
    /// What it shows, in a few words.
    pub title: String,
    /// What it says, for those who do not see it.
    pub about: String,
    /// The axis and what it measures.
    pub axis: (Scale, String),
    /// A line from top to bottom here: what the rows are compared with.
    pub mark: Option<f64>,
    /// The first on top.
    pub rows: Vec<Row>,
}

/// One row.
pub struct Row {
    /// At its left.
    pub name: String,
    /// At its right: the number in short.
    pub value: String,
    /// Bars from left to right, each beginning where the last one ends: length, class and what it is.
    pub bars: Vec<(f64, &'static str, String)>,
    /// A dot, its interval and its class.
    pub dot: Option<Dot>,
}

/// A value and how far it is to be trusted.
pub struct Dot {
    /// Where it is.
    pub value: f64,
    /// From and to.
    pub interval: Option<(f64, f64)>,
    /// Its look.
    pub class: &'static str,
    /// More of it, shown to who points at it.
    pub about: String,
}

const WIDTH: f64 = 352.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = WIDTH - 44.0;
const TOP: f64 = 6.0;
const ROW: f64 = 19.0;
const LONGEST_NAME: usize = 13;

impl Rows {
    /// As SVG.
    pub fn svg(&self) -> Element {
        let bottom = TOP + ROW * self.rows.len() as f64;
        let rows = self.rows.iter().enumerate().map(|(i, row)| self.row(row, TOP + ROW * (i as f64 + 0.5)));
        canvas((WIDTH, bottom + 36.0), &self.title, &self.about)
            .holding(self.grid(bottom))
            .holding(self.mark.and_then(|at| self.across(at)).map(|x| line((x, TOP), (x, bottom), "level")))
            .holding(rows)
    }

    fn grid(&self, bottom: f64) -> Vec<Element> {
        let mut grid = vec![label(&self.axis.1, (RIGHT, bottom + 30.0), Side::Left, "axis")];
        for (value, text) in self.axis.0.ticks() {
            let Some(x) = self.across(value) else { continue };
            grid.push(line((x, TOP), (x, bottom), "grid"));
            grid.push(label(&text, (x, bottom + 14.0), Side::Middle, "tick"));
        }
        grid
    }

    fn row(&self, row: &Row, y: f64) -> Element {
        element("g")
            .holding([element("title").text(&row.name)])
            .holding([label(&shortened(&row.name, LONGEST_NAME), (LEFT - 8.0, y + 3.5), Side::Left, "name")])
            .holding([label(&row.value, (WIDTH - 2.0, y + 3.5), Side::Left, "value")])
            .holding(self.bars(&row.bars, y))
            .holding(row.dot.iter().flat_map(|dot| self.dot(dot, y)))
    }

    fn bars(&self, bars: &[(f64, &'static str, String)], y: f64) -> Vec<Element> {
        let mut from = self.axis.0.ends().0;
        let mut drawn = Vec::new();
        for (length, class, about) in bars {
            let to = from + length;
            if let Some((left, right)) = self.across(from).zip(self.across(to)) {
                drawn.push(rectangle((left, y - 5.5), (right, y + 5.5), class, about));
            }
            from = to;
        }
        drawn
    }

    fn dot(&self, of: &Dot, y: f64) -> Vec<Element> {
        let ends = of.interval.and_then(|(low, high)| self.across(low).zip(self.across(high)));
        let whisker = ends.map(|(low, high)| line((low, y), (high, y), &format!("whisker {}", of.class)));
        let dot = self.across(of.value).map(|x| dot((x, y), of.class, &of.about));
        whisker.into_iter().chain(dot).collect()
    }

    fn across(&self, value: f64) -> Option<f64> {
        Some(LEFT + self.axis.0.share(value)? * (RIGHT - LEFT))
    }
}
