//! Where a label may stand: beside its mark, inside the drawing, and on no other label or mark.

use super::markup::{element, Element};

/// What of a drawing is taken.
pub struct Room {
    inside: Area,
    taken: Vec<Area>,
}

#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

/// On which side of its place a text lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    /// It begins there.
    Right,
    /// It ends there.
    Left,
    /// Its middle is there.
    Middle,
}

impl Room {
    /// An empty drawing between two corners.
    pub fn new((left, top): (f64, f64), (right, bottom): (f64, f64)) -> Room {
        Room { inside: Area { left, top, right, bottom }, taken: Vec::new() }
    }

    /// A mark of this radius stands here.
    pub fn take(&mut self, (x, y): (f64, f64), radius: f64) {
        self.taken.push(Area { left: x - radius, top: y - radius, right: x + radius, bottom: y + radius });
    }

    /// `text` at the first of `places` that is free; `None` if none is: a label that hides another is worse than none.
    pub fn place(&mut self, text: &str, places: &[(f64, f64, Side)], class: &str) -> Option<Element> {
        let &(x, y, side) = places.iter().find(|&&place| self.is_free(area(text, place)))?;
        self.taken.push(area(text, (x, y, side)));
        Some(label(text, (x, y), side, class))
    }

    fn is_free(&self, wanted: Area) -> bool {
        let Area { left, top, right, bottom } = self.inside;
        let inside = wanted.left >= left && wanted.top >= top && wanted.right <= right && wanted.bottom <= bottom;
        let meets = |other: &Area| {
            wanted.left < other.right
                && other.left < wanted.right
                && wanted.top < other.bottom
                && other.top < wanted.bottom
        };
        inside && !self.taken.iter().any(meets)
    }
}

/// The places around a mark, the best first.
pub fn around((x, y): (f64, f64)) -> [(f64, f64, Side); 10] {
    [
        (x + 7.5, y + 3.5, Side::Right),
        (x - 7.5, y + 3.5, Side::Left),
        (x, y - 8.0, Side::Middle),
        (x, y + 15.0, Side::Middle),
        (x + 5.0, y - 5.0, Side::Right),
        (x - 5.0, y - 5.0, Side::Left),
        (x - 4.0, y + 16.0, Side::Right),
        (x + 4.0, y - 9.0, Side::Left),
        (x + 4.0, y + 16.0, Side::Left),
        (x - 4.0, y - 9.0, Side::Right),
    ]
}

/// A text whose baseline is here.
pub fn label(text: &str, (x, y): (f64, f64), side: Side, class: &str) -> Element {
    let anchor = match side {
        Side::Right => "start",
        Side::Left => "end",
        Side::Middle => "middle",
    };
    let at = |place: f64| format!("{place:.1}");
    element("text").with("x", at(x)).with("y", at(y)).with("text-anchor", anchor).class(class).text(text)
}

/// A text no longer than `most` characters.
pub fn shortened(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// How wide a text of 10.5 pixels is, a little generously: fonts differ.
pub fn width(text: &str) -> f64 {
    5.9 * text.chars().count() as f64
}

/// `places` in the same order, moved as little as it takes to be `gap` apart and between the ends.
pub fn spread(places: &[f64], gap: f64, (low, high): (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let mut spread = places.to_vec();
    let mut least = low;
    for &i in &order {
        spread[i] = spread[i].max(least);
        least = spread[i] + gap;
    }
    let mut most = high;
    for &i in order.iter().rev() {
        spread[i] = spread[i].min(most);
        most = spread[i] - gap;
    }
    spread
}

fn area(text: &str, (x, y, side): (f64, f64, Side)) -> Area {
    let width = width(text);
    let left = match side {
        Side::Right => x,
        Side::Left => x - width,
        Side::Middle => x - width / 2.0,
    };
    Area { left, top: y - 9.0, right: left + width, bottom: y + 2.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_spread_in_their_order_and_no_further_than_they_must() {
        assert_eq!(spread(&[50.0, 10.0, 52.0], 11.0, (0.0, 100.0)), [50.0, 10.0, 61.0]);
        assert_eq!(spread(&[98.0, 99.0], 11.0, (0.0, 100.0)), [89.0, 100.0]);
    }

    #[test]
    fn a_label_goes_where_nothing_is_or_is_left_out() {
        let mut room = Room::new((0.0, 0.0), (100.0, 40.0));
        let places = [(10.0, 20.0, Side::Right), (90.0, 20.0, Side::Left)];
        let first = room.place("one", &places, "label").expect("all is free").to_string();
        let second = room.place("two", &places, "label").expect("the other place is").to_string();
        assert!(first.contains("x=\"10.0\"") && second.contains("x=\"90.0\""), "{first} {second}");
        assert!(room.place("three", &places, "label").is_none());
        assert!(room.place("out", &[(98.0, 20.0, Side::Right)], "label").is_none());
    }
}
