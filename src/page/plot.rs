//! A drawing over two axes of numbers: lines, dots with intervals, and levels across.
//!
//! It is drawn as wide as a phone and never shrunk, so that its text stays readable there. What a line is
//! called stands at its right end and what a dot is called beside it, rather than in a legend; a dot whose name finds no
//! place there has it in the table that goes with every drawing.

use super::markup::{element, Element};
use super::room::{around, label, shortened, spread, width, Room, Side};
use super::scale::Scale;

/// A drawing, to be filled and written out.
pub struct Plot {
    /// What it shows, in a few words.
    pub title: String,
    /// What it says, for those who do not see it.
    pub about: String,
    /// The axes with what they measure.
    pub x: (Scale, String),
    /// Its name stands above the axis.
    pub y: (Scale, String),
    /// What is drawn, the lowest first.
    pub marks: Vec<Mark>,
}

/// One thing drawn. Its class says what colour it has; see `style.css`.
pub enum Mark {
    /// From point to point; its name stands at the right.
    Line {
        /// By x.
        points: Vec<(f64, f64)>,
        /// Its look.
        class: &'static str,
        /// Its name, or nothing.
        name: String,
    },
    /// A value with what there is to say of it.
    Dot {
        /// x and y.
        at: (f64, f64),
        /// The interval of y.
        interval: Option<(f64, f64)>,
        /// Its look.
        class: &'static str,
        /// Its name, or nothing.
        name: String,
        /// More of it, shown to who points at it.
        about: String,
    },
    /// A line across at one y.
    Level {
        /// Where.
        y: f64,
        /// Its look.
        class: &'static str,
        /// Its name.
        name: String,
    },
}

const WIDTH: f64 = 352.0;
const HEIGHT: f64 = 252.0;
const LEFT: f64 = 40.0;
const LONGEST_NAME: usize = 18;
const TOP: f64 = 26.0;
const BOTTOM: f64 = HEIGHT - 38.0;

impl Plot {
    /// As SVG.
    pub fn svg(&self) -> Element {
        let mut room = Room::new((LEFT, TOP - 12.0), (self.right() - 2.0, BOTTOM));
        let drawn: Vec<Element> = self.marks.iter().filter_map(|mark| self.drawn(mark, &mut room)).collect();
        let names: Vec<Element> = self.marks.iter().filter_map(|mark| self.named(mark, &mut room)).collect();
        canvas((WIDTH, HEIGHT), &self.title, &self.about)
            .holding(self.grid())
            .holding(drawn)
            .holding(self.line_names())
            .holding(names)
    }

    /// Where the axis ends: the names of lines stand beyond it.
    fn right(&self) -> f64 {
        let name =
            |mark: &Mark| if let Mark::Line { name, .. } = mark { width(&shortened(name, LONGEST_NAME)) } else { 0.0 };
        let longest = self.marks.iter().map(name).fold(0.0, f64::max);
        WIDTH - if longest > 0.0 { longest + 12.0 } else { 14.0 }
    }

    /// The names of lines, each at the height of its line's end as far as there is room, with a thin line to it.
    fn line_names(&self) -> Vec<Element> {
        let end = |mark: &Mark| match mark {
            Mark::Line { points, name, .. } if !name.is_empty() => {
                Some((self.inside(points).last().copied()?, name.clone()))
            }
            _ => None,
        };
        let ends: Vec<((f64, f64), String)> = self.marks.iter().filter_map(end).collect();
        let heights: Vec<f64> = ends.iter().map(|(end, _)| end.1).collect();
        let x = self.right() + 8.0;
        let name = |((end, name), y): (&((f64, f64), String), f64)| {
            let leader = line(*end, (x - 2.0, y), "leader");
            [leader, label(&shortened(name, LONGEST_NAME), (x, y + 3.5), Side::Right, "label")]
        };
        ends.iter().zip(spread(&heights, 11.5, (TOP, BOTTOM))).flat_map(name).collect()
    }

    fn grid(&self) -> Vec<Element> {
        let mut grid = Vec::new();
        for (value, text) in self.x.0.ticks() {
            let Some(x) = self.across(value) else { continue };
            grid.push(line((x, TOP), (x, BOTTOM), "grid"));
            grid.push(label(&text, (x, BOTTOM + 14.0), Side::Middle, "tick"));
        }
        for (value, text) in self.y.0.ticks() {
            let Some(y) = self.down(value) else { continue };
            grid.push(line((LEFT, y), (self.right(), y), "grid"));
            grid.push(label(&text, (LEFT - 6.0, y + 3.5), Side::Left, "tick"));
        }
        grid.push(label(&self.x.1, (self.right(), HEIGHT - 6.0), Side::Left, "axis"));
        grid.push(label(&self.y.1, (4.0, 12.0), Side::Right, "axis"));
        grid
    }

    fn drawn(&self, mark: &Mark, room: &mut Room) -> Option<Element> {
        match mark {
            Mark::Line { points, class, .. } => Some(path(&self.inside(points), class)),
            Mark::Dot { at, interval, class, about, .. } => {
                let place = self.place(*at)?;
                room.take(place, 4.0);
                let ends = interval.and_then(|(low, high)| self.down(low).zip(self.down(high)));
                let whisker =
                    ends.map(|(low, high)| line((place.0, low), (place.0, high), &format!("whisker {class}")));
                Some(element("g").holding(whisker).holding([dot(place, class, about)]))
            }
            Mark::Level { y, class, .. } => Some(line((LEFT, self.down(*y)?), (self.right(), self.down(*y)?), class)),
        }
    }

    fn named(&self, mark: &Mark, room: &mut Room) -> Option<Element> {
        match mark {
            Mark::Dot { at, name, .. } if !name.is_empty() => room.place(name, &around(self.place(*at)?), "label"),
            Mark::Level { y, name, .. } if !name.is_empty() => {
                let y = self.down(*y)?;
                let (left, right) = (LEFT + 4.0, self.right() - 4.0);
                let places = [
                    (left, y - 4.0, Side::Right),
                    (right, y - 4.0, Side::Left),
                    (left, y + 12.0, Side::Right),
                    (right, y + 12.0, Side::Left),
                ];
                room.place(name, &places, "label")
            }
            _ => None,
        }
    }

    /// The points that are on both axes.
    fn inside(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        points.iter().filter_map(|&at| self.place(at)).collect()
    }

    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        self.across(x).zip(self.down(y))
    }

    fn across(&self, x: f64) -> Option<f64> {
        Some(LEFT + self.x.0.share(x)? * (self.right() - LEFT))
    }

    fn down(&self, y: f64) -> Option<f64> {
        Some(BOTTOM - self.y.0.share(y)? * (BOTTOM - TOP))
    }
}

/// An SVG of this size with a title and a description.
pub fn canvas((width, height): (f64, f64), title: &str, about: &str) -> Element {
    element("svg")
        .with("viewBox", format!("0 0 {width:.0} {height:.0}"))
        .with("role", "img")
        .holding([element("title").text(title), element("desc").text(about)])
}

/// A straight line.
pub fn line(from: (f64, f64), to: (f64, f64), class: &str) -> Element {
    let at = |place: f64| format!("{place:.1}");
    element("line").with("x1", at(from.0)).with("y1", at(from.1)).with("x2", at(to.0)).with("y2", at(to.1)).class(class)
}

/// A dot that says more to who points at it.
pub fn dot((x, y): (f64, f64), class: &str, about: &str) -> Element {
    let circle = element("circle").with("cx", format!("{x:.1}")).with("cy", format!("{y:.1}")).with("r", "3.6");
    circle.class(class).holding([element("title").text(about)])
}

/// A filled rectangle that says more to who points at it.
pub fn rectangle((left, top): (f64, f64), (right, bottom): (f64, f64), class: &str, about: &str) -> Element {
    let rectangle = element("rect").with("x", format!("{left:.1}")).with("y", format!("{top:.1}"));
    let (width, height) = ((right - left).max(0.0), (bottom - top).max(0.0));
    let rectangle = rectangle.with("width", format!("{width:.1}")).with("height", format!("{height:.1}"));
    rectangle.class(class).holding([element("title").text(about)])
}

fn path(points: &[(f64, f64)], class: &str) -> Element {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    element("polyline").with("points", points.join(" ")).class(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(marks: Vec<Mark>) -> String {
        let axis = || (Scale::linear([0.0, 10.0]), "unit".to_owned());
        Plot { title: "t".to_owned(), about: "a".to_owned(), x: axis(), y: axis(), marks }.svg().to_string()
    }

    fn dot_at(at: (f64, f64)) -> Mark {
        Mark::Dot { at, interval: None, class: "even", name: "name".to_owned(), about: String::new() }
    }

    #[test]
    fn what_is_on_no_axis_is_not_drawn() {
        let drawn = plot(vec![dot_at((5.0, 5.0)), dot_at((f64::NAN, 5.0)), dot_at((5.0, 11.0))]);
        assert_eq!(drawn.matches("<circle").count(), 1, "{drawn}");
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
    }

    #[test]
    fn the_ends_of_the_axes_are_the_corners() {
        let drawn = plot(vec![dot_at((0.0, 0.0)), dot_at((10.0, 10.0))]);
        for (x, y) in [(LEFT, BOTTOM), (WIDTH - 14.0, TOP)] {
            assert!(drawn.contains(&format!("cx=\"{x:.1}\" cy=\"{y:.1}\"")), "{x} {y}: {drawn}");
        }
    }
}
