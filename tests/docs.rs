//! The documents tell what is there: their code stands in files that are compiled and run, their
//! configurations are read, and the architecture page names every module and drafter.

use std::fs;
use std::path::{Path, PathBuf};

use foretoken::config::Config;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The fenced blocks of one language, without their fences.
fn blocks(markdown: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let starts = markdown.match_indices(&fence).map(|(at, _)| at + fence.len());
    starts.map(|start| markdown[start..].split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn stands_in_a_file(document: &str, language: &str, folder: &str) {
    let texts: Vec<String> = files(&root().join(folder)).iter().filter_map(|f| fs::read_to_string(f).ok()).collect();
    let blocks = blocks(&read(document), language);
    assert!(!blocks.is_empty(), "{document} has no {language} block");
    for block in blocks {
        // A block may skip what lies between two paragraphs of a file, so each is looked for by itself.
        let missing = block.split("\n\n").map(str::trim_end).find(|part| !texts.iter().any(|text| text.contains(part)));
        assert_eq!(missing, None, "{document} shows code that is in no file of {folder}");
    }
}

#[test]
fn the_code_of_the_guide_is_that_of_the_example() {
    stands_in_a_file("drafters/README.md", "rust", "examples/bigram");
    stands_in_a_file("drafters/README.md", "toml", "examples/bigram");
}

#[test]
fn the_code_of_the_readme_is_that_of_an_example() {
    stands_in_a_file("README.md", "rust", "examples");
}

#[test]
fn the_configurations_of_the_readme_are_read() {
    let blocks = blocks(&read("README.md"), "toml");
    assert!(!blocks.is_empty());
    let folder = tempfile::tempdir().expect("a folder");
    for block in blocks {
        let file = folder.path().join("shown.toml");
        fs::write(&file, &block).expect("it can be written");
        Config::read(&file).and_then(|config| config.setup()).unwrap_or_else(|e| panic!("{e}\n{block}"));
    }
}

#[test]
fn the_architecture_page_names_every_module_and_drafter() {
    let page: String = read("src/lib.rs").lines().filter(|line| line.starts_with("//!")).collect();
    let names = |folder: &str| {
        let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
        let paths = entries.flatten().map(|entry| entry.path());
        paths.map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    for module in names("src").iter().filter(|name| !["lib", "main"].contains(&name.as_str())) {
        assert!(page.contains(&format!("* [`{module}`]: ")), "src/lib.rs: the code map lacks `{module}`");
    }
    for drafter in names("drafters").iter().filter(|name| *name != "README") {
        assert!(page.contains(&format!("`drafters/{drafter}`")), "src/lib.rs: the code map lacks drafters/{drafter}");
    }
}

/// The fields of the struct that a source file declares under this name.
fn fields(file: &str, name: &str) -> Vec<String> {
    let text = read(file);
    let Some((_, body)) = text.split_once(&format!("struct {name} {{\n")) else { return Vec::new() };
    let lines = body.lines().take_while(|line| *line != "}").map(str::trim);
    let declared = lines.filter(|line| !line.starts_with("//") && !line.starts_with('#'));
    let names = declared.filter_map(|line| line.split_once(": "));
    names.map(|(name, _)| name.trim_start_matches("pub ").trim_start_matches("r#").to_owned()).collect()
}

#[test]
fn every_key_of_a_configuration_is_explained() {
    let page = read("configs/README.md");
    let tables = ["TargetTable", "SamplingTable", "SpeculationTable"].map(|table| ("src/config.rs".to_owned(), table));
    let kinds = files(&root().join("drafters")).into_iter().filter(|file| file.ends_with("src/lib.rs"));
    let kinds = kinds.flat_map(|file| [file.clone(), file.with_file_name("settings.rs")]).filter(|file| file.is_file());
    let settings = kinds.map(|file| (file.strip_prefix(root()).unwrap().to_string_lossy().into_owned(), "Settings"));
    let mut keys = 0;
    for (file, table) in tables.into_iter().chain(settings) {
        for key in fields(&file, table) {
            keys += 1;
            assert!(page.contains(&format!("`{key}`")), "configs/README.md lacks `{key}` of {file}");
        }
    }
    assert!(keys > 40, "only {keys} keys were found in the sources");
}

#[test]
fn every_drafter_says_when_it_helps_when_it_hurts_and_what_memory_it_takes() {
    let folders = fs::read_dir(root().join("drafters")).unwrap().flatten().map(|entry| entry.path());
    for folder in folders.filter(|folder| folder.is_dir() && !folder.ends_with("api")) {
        let file = folder.join("src/lib.rs");
        let text = fs::read_to_string(&file).unwrap();
        let page: String = text.lines().filter(|line| line.starts_with("//!")).collect::<String>().to_lowercase();
        for word in ["helps", "hurts", "memory"] {
            assert!(page.contains(word), "{} does not say: {word}", file.display());
        }
        assert!(read("configs/README.md").contains(&format!("`{}`", file_name(&folder))), "{}", folder.display());
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
