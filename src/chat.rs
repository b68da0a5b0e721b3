//! `--chat`: a prompt wrapped in the model's own chat template, a Jinja text in its metadata.

use minijinja::syntax::SyntaxConfig;
use minijinja::{context, Environment, Error, ErrorKind};

/// Render a conversation of one user message, ready for the answer.
///
/// `bos` and `eos` are the model's beginning and end tokens, which many templates write themselves.
///
/// # Errors
/// The template is not valid, or refuses the conversation; the message is one line.
pub fn render(template: &str, message: &str, bos: &str, eos: &str) -> Result<String, String> {
    let mut jinja = Environment::new();
    // Templates are written for Python: methods such as `strip`, and a function to refuse.
    jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    jinja.add_function("raise_exception", |reason: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, reason))
    });
    jinja.set_syntax(syntax().map_err(|e| e.to_string())?);
    let values = context! {
        messages => [context! { role => "user", content => message }],
        add_generation_prompt => true,
        bos_token => bos,
        eos_token => eos,
    };
    let rendered = jinja.render_str(template, values);
    rendered.map_err(|e| e.to_string().lines().next().unwrap_or_default().to_owned())
}

/// Whitespace as the library that templates were written with treats it.
fn syntax() -> Result<SyntaxConfig, Error> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()
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
}
