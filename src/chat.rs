//! `--chat`: a prompt wrapped in the model's own chat template, a Jinja text in its metadata.
//!
//! Templates are written for the environment that Hugging Face's transformers make (`apply_chat_template`): Python's
//! methods, a few functions and values, and a tag that only marks what to train on.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{context, Environment, Error, ErrorKind};

/// Render a conversation of one user message, ready for the answer.
///
/// `bos` and `eos` are the model's beginning and end tokens, which many templates write themselves.
///
/// # Errors
/// The template is not valid, or refuses the conversation; the message is one line.
pub fn render(template: &str, message: &str, bos: &str, eos: &str) -> Result<String, String> {
    let mut jinja = Environment::new();
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function("raise_exception", |reason: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, reason))
    });
    jinja.add_function("strftime_now", today);
    jinja.add_test("iterable", is_iterable);
    jinja.set_syntax(syntax().map_err(|e| e.to_string())?);
    let values = context! {
        messages => [context! { role => "user", content => message }],
        add_generation_prompt => true,
        bos_token => bos,
        eos_token => eos,
        tools => (),
        documents => (),
    };
    let rendered = jinja.render_str(&without_training_marks(template), values);
    rendered.map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())
}

/// Whitespace as the library that templates were written with treats it.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
}

/// The local time, written as `format` says (as C's `strftime`).
fn today(format: &str) -> Result<String, Error> {
    let written = jiff::fmt::strtime::format(format, &jiff::Zoned::now());
    written.map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now('{format}'): {e}")))
}

/// Whether Python could loop over `value`; minijinja also loops over none, as if it were empty.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && (value.as_str().is_some() || value.try_iter().is_ok())
}

/// `template` with blocks in the place of `generation` and `endgeneration`, which say nothing about the text.
fn without_training_marks(template: &str) -> Cow<'_, str> {
    if !template.contains("endgeneration") {
        return Cow::Borrowed(template);
    }
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{%") {
        let (tag, after) = after.split_at(after.find("%}").unwrap_or(after.len()));
        text.push_str(before);
        text.push_str("{%");
        match tag.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace()) {
            "generation" => text.push_str(&tag.replace("generation", "with")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endwith")),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
        message['content'].strip() + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
        {{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn a_template_written_for_python_renders() {
        let text = render(CHATML, " hello ", "<s>", "</s>").unwrap();
        assert_eq!(text, "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
    }

    #[test]
    fn a_refusal_or_a_broken_template_is_an_error_of_one_line() {
        let refused = render("{{ raise_exception('no system role') }}", "x", "", "").unwrap_err();
        assert!(refused.contains("no system role") && !refused.contains('\n'), "{refused}");
        assert!(render("{% for %}", "x", "", "").is_err());
    }

    #[test]
    fn what_transformers_give_a_template_is_there() {
        let rendered = |template: &str| render(template, "x", "", "");
        assert_eq!(
            rendered("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}").unwrap(),
            "1"
        );
        assert_eq!(
            rendered("{%- generation -%} a {%- endgeneration %}{% set generation = 1 %} {{ generation }}").unwrap(),
            "a 1"
        );
        assert_eq!(
            rendered("{% if tools is none and tools is not iterable and [] is iterable %}none{% endif %}").unwrap(),
            "none"
        );
        let year = rendered("{{ strftime_now('%Y-%m-%d') }}").unwrap();
        assert!(year.len() == 10 && year.starts_with("20") && year.as_bytes()[4] == b'-', "{year}");
        let wrong = rendered("{{ strftime_now('%!') }}").unwrap_err();
        assert!(wrong.contains("strftime_now('%!')") && !wrong.contains('\n'), "{wrong}");
    }

    #[test]
    fn only_the_tags_of_training_marks_change() {
        let changed = |text| without_training_marks(text).into_owned();
        assert_eq!(changed("a {%+ generation\n%}b{%-endgeneration-%}"), "a {%+ with\n%}b{%-endwith-%}");
        for same in [
            "generation",
            "{% if generation %}{% endif %}",
            "{% endgeneration",
            "{% x",
            "",
            "{{ 'endgeneration' }}{% y %}",
        ] {
            assert_eq!(changed(same).replace("endwith", "endgeneration"), same);
        }
    }
}
