//! What the settings name is opened, and what does not fit is refused with a reason.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::path::Path;

use foretoken_drafter::{DraftError, Drafter, Host, LanguageModel, ModelSpec, TargetInfo, Token};
use foretoken_drafter_ngram::table::Build;

struct Files {
    tokenizer: u64,
}

impl Host for Files {
    fn target(&self) -> TargetInfo {
        TargetInfo { n_vocab: 100, tokenizer: self.tokenizer, ..TargetInfo::default() }
    }

    fn open_model(&mut self, _: &ModelSpec) -> Result<Box<dyn LanguageModel>, DraftError> {
        Err(DraftError::settings("there are no models"))
    }

    fn build(&mut self, _: &str, _: &str) -> Result<Box<dyn Drafter>, DraftError> {
        Err(DraftError::settings("there are no drafters"))
    }
}

fn build(settings: &str, tokenizer: u64) -> Result<(), String> {
    let drafter = foretoken_drafter_ngram::build(settings, &mut Files { tokenizer });
    drafter.map(drop).map_err(|error| error.to_string())
}

fn write_table(out: &Path, tokenizer: u64, n: Token) {
    let documents = [Ok::<_, Infallible>((0..n).collect())];
    let go_on = &mut |_| ControlFlow::Continue(());
    Build { tokenizer, ..Build::default() }.write(documents, out, go_on).unwrap();
}

#[test]
fn files_for_this_tokenizer_are_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (table, other, history) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("h"));
    write_table(&table, 5, 50);
    write_table(&other, 0, 50);
    assert_eq!(build("", 5), Ok(()));
    assert_eq!(build(&format!("table = {table:?}"), 5), Ok(()));
    let all = format!("table = [{table:?}, {other:?}]\nhistory = {history:?}\nhistory_limit = 5000");
    assert_eq!(build(&all, 5), Ok(()));
    assert!(history.exists());
}

#[test]
fn what_does_not_fit_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (table, history) = (folder.path().join("a"), folder.path().join("h"));
    write_table(&table, 5, 50);
    assert_eq!(build(&format!("history = {history:?}"), 5), Ok(()));
    let complaint = |settings: &str, tokenizer| build(settings, tokenizer).unwrap_err();
    for (settings, tokenizer, reason) in [
        (format!("table = {table:?}"), 6, "another tokenizer"),
        (format!("history = {history:?}"), 6, "another tokenizer"),
        (format!("table = {history:?}"), 5, "no n-gram table"),
        (format!("history = {table:?}"), 5, "no history"),
        (format!("table = {:?}", folder.path().join("none")), 5, "or make it: foretoken prepare ngram"),
        (format!("history = {:?}", folder.path()), 5, "history "),
        ("history = true".to_owned(), 0, "the target's tokenizer is unknown; name a file"),
    ] {
        let complaint = complaint(&settings, tokenizer);
        assert!(complaint.contains(reason) && !complaint.contains('\n'), "{settings}: {complaint}");
    }
    assert!(complaint(&format!("table = {table:?}"), 6).contains(table.to_str().unwrap()));
    assert!(!folder.path().join("a.lock").exists(), "what is refused gets no lock beside it");
}

#[test]
fn a_table_is_written_only_where_a_file_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let mut places = vec![(folder.path().to_owned(), "is a directory"), (folder.path().join("a/b"), "create it first")];
    if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        places.push((pipe, "a pipe"));
    }
    for (out, reason) in places {
        let before = std::fs::metadata(&out).map(|there| there.file_type()).ok();
        let documents = [Ok::<_, Infallible>(vec![1, 2, 3])];
        let refused = Build::default().write(documents, &out, &mut |_| ControlFlow::Continue(())).unwrap_err();
        assert!(refused.to_string().contains(reason), "{refused}");
        assert_eq!(std::fs::metadata(&out).map(|there| there.file_type()).ok(), before);
    }
}

#[test]
fn opening_reads_the_header_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("table");
    write_table(&out, 5, 50);
    let mut bytes = std::fs::read(&out).unwrap();
    bytes[64..].fill(0xff);
    assert!(foretoken_drafter_ngram::Table::open(Box::new(bytes), 5).is_ok());
}
