//! A drawing with its name, and the numbers that it shows as a table.

use super::markup::{element, Element};

/// The drawings of one section, side by side as far as there is room, and their tables below.
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// What to see, in a sentence or two.
    pub lead: Element,
    /// Drawings.
    pub figures: Vec<Element>,
    /// Their numbers.
    pub tables: Vec<Element>,
}

impl Section {
    /// As HTML.
    pub fn html(self) -> Element {
        element("section")
            .holding([element("h2").text(self.title), self.lead])
            .holding([element("div").class("figures").holding(self.figures)])
            .holding(self.tables)
    }
}

/// A drawing under its name.
pub fn figure(name: &str, svg: Element) -> Element {
    element("figure").holding([element("figcaption").text(name), svg])
}

/// What the colours of a section mean: class and meaning.
pub fn legend(keys: &[(&str, &str)]) -> Element {
    let key = |&(class, meaning): &(&str, &str)| {
        let swatch = element("svg").with("viewBox", "0 0 20 10").class("swatch").with("aria-hidden", "true");
        let sample = match class.split(' ').next() {
            Some("line") => super::plot::line((1.0, 5.0), (19.0, 5.0), class),
            Some("bar") => element("rect").with("x", 3).with("y", 0).with("width", 14).with("height", 10).class(class),
            _ => element("circle").with("cx", 10).with("cy", 5).with("r", 4).class(class),
        };
        element("span").class("key").holding([swatch.holding([sample])]).text(meaning)
    };
    element("p").class("legend").holding(keys.iter().map(key))
}

/// A table to be unfolded. The first cell of a row is its name.
pub fn table(name: &str, head: &[&str], rows: Vec<Vec<String>>) -> Element {
    let cells = |row: Vec<String>| {
        element("tr").holding(row.into_iter().enumerate().map(|(i, cell)| match i {
            0 => element("th").with("scope", "row").text(cell),
            _ => element("td").text(cell),
        }))
    };
    let head = element("tr").holding(head.iter().map(|cell| element("th").with("scope", "col").text(cell)));
    let table = element("table")
        .holding([element("thead").holding([head]), element("tbody").holding(rows.into_iter().map(cells))]);
    element("details")
        .holding([element("summary").text(format!("Numbers: {name}")), element("div").class("scroll").holding([table])])
}

/// `value` with so many digits, or a dash if there is none.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.filter(|v| v.is_finite()).map_or("–".to_owned(), |v| format!("{v:.digits$}"))
}

/// From and to, or a dash.
pub fn between(range: Option<(f64, f64)>) -> String {
    range.map_or("–".to_owned(), |(low, high)| format!("{low:.2}–{high:.2}"))
}
