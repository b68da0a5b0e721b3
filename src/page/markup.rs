//! HTML and SVG as a tree of elements, so that what is written out is well-formed and no text can become markup.
//!
//! Names in a report come from files of anyone's making. Text and attributes are escaped where they are written, in one
//! place, and there is no call that takes markup as a string.

use std::fmt::{self, Display, Formatter};

/// An element with its attributes and what is in it.
#[derive(Clone, Debug)]
pub struct Element {
    tag: &'static str,
    attributes: Vec<(&'static str, String)>,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
enum Child {
    Element(Element),
    Text(String),
}

/// An empty element.
pub fn element(tag: &'static str) -> Element {
    Element { tag, attributes: Vec::new(), children: Vec::new() }
}

impl Element {
    /// The same with an attribute.
    pub fn with(mut self, name: &'static str, value: impl Display) -> Element {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// The same with a class.
    pub fn class(self, name: &str) -> Element {
        self.with("class", name)
    }

    /// The same with text after what is in it.
    pub fn text(mut self, text: impl Display) -> Element {
        self.children.push(Child::Text(text.to_string()));
        self
    }

    /// The same with elements, one or none or many, after what is in it.
    pub fn holding(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.children.extend(children.into_iter().map(Child::Element));
        self
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.tag)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}=\"{}\"", escaped(value))?;
        }
        if self.tag == "meta" {
            return write!(f, "/>");
        }
        write!(f, ">")?;
        for child in &self.children {
            match child {
                Child::Element(element) => element.fmt(f)?,
                Child::Text(text) => write!(f, "{}", escaped(text))?,
            }
        }
        write!(f, "</{}>", self.tag)?;
        if ENDS_A_LINE.contains(&self.tag) {
            writeln!(f)?;
        }
        Ok(())
    }
}

/// After these a line ends, so that the page can be read as text.
const ENDS_A_LINE: [&str; 10] = ["head", "style", "section", "figure", "p", "h1", "h2", "h3", "tr", "svg"];

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() && c != '\n' => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_cannot_become_markup() {
        let hostile = "</p><script>alert(\"&\")</script>\u{0}";
        let page = element("p").with("title", hostile).text(hostile).to_string();
        let written = "&lt;/p&gt;&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/script&gt;\u{fffd}";
        assert_eq!(page, format!("<p title=\"{written}\">{written}</p>\n"));
    }

    #[test]
    fn elements_are_closed_even_if_empty() {
        let page = element("td").holding([element("meta").with("charset", "utf-8"), element("i")]).to_string();
        assert_eq!(page, "<td><meta charset=\"utf-8\"/><i></i></td>");
    }
}
