//! What `make` installs before it builds: asked of `tests/tools.sh` with a PATH of stubs, in folders that hold some of
//! what a system may hold. Nothing is installed here: `apt-get` only writes down what it was told.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LIBRARY: &str = "usr/lib/llvm-14/lib/libclang.so.1";
const HEADERS: &str = "usr/lib/llvm-14/lib/clang/14.0.6/include/stddef.h";

/// A machine in a folder: the programs on its PATH, and the files below its root.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// One with everything.
    fn complete() -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        for tool in ["cmake", "c++", "cargo"] {
            machine.program(tool, "exit 99");
        }
        machine.program("id", "echo 0");
        machine.program("uname", "echo Linux");
        let asks = "[ \"$1\" = update ] || [ \"${DEBIAN_FRONTEND:-}\" = noninteractive ] || exit 98"; // it would ask
        machine.program("apt-get", &format!("{asks}\necho \"apt-get $*\" >> \"$LOG\""));
        machine.program("env", "export \"$1\"; shift; exec \"$@\"");
        machine.program("sudo", "echo sudo >> \"$LOG\"; unset DEBIAN_FRONTEND; exec \"$@\"");
        machine.file(LIBRARY).file(HEADERS);
        machine
    }

    fn without(missing: &[&str]) -> Machine {
        let machine = Machine::complete();
        for name in missing {
            let place = machine.root().join(name);
            let place = if place.exists() { place } else { machine.programs().join(name) };
            fs::remove_file(place).unwrap();
        }
        machine
    }

    fn program(&self, name: &str, script: &str) {
        fs::create_dir_all(self.programs()).unwrap();
        let path = self.programs().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn file(&self, name: &str) -> &Machine {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
        self
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// What the script did, and what was asked of the package manager, line by line.
    fn tools(&self) -> (Output, Vec<String>) {
        let log = self.folder.path().join("log");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools.sh");
        let mut command = Command::new("/bin/sh");
        command.arg(script).arg(self.root()).env_clear().env("PATH", self.programs()).env("LOG", &log);
        let output = command.output().unwrap();
        (output, fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect())
    }

    /// The packages that it installs; none if it never calls the package manager.
    fn installs(&self) -> String {
        let (output, asked) = self.tools();
        assert!(output.status.success(), "{output:?}");
        match &asked[..] {
            [] => {
                assert!(output.stdout.is_empty() && output.stderr.is_empty(), "it says something: {output:?}");
                String::new()
            }
            [update, install] => {
                assert_eq!(update, "apt-get update -qq");
                install.strip_prefix("apt-get install -y -qq ").unwrap_or_else(|| panic!("{install}")).to_owned()
            }
            _ => panic!("{asked:?}"),
        }
    }
}

#[test]
fn nothing_is_installed_where_everything_is() {
    assert_eq!(Machine::complete().installs(), "");
    // Fedora's places, and a library that Debian's libclang1 brings.
    let elsewhere = Machine::without(&[LIBRARY, HEADERS]);
    elsewhere.file("usr/lib64/libclang.so.19").file("usr/lib/clang/19/include/stddef.h");
    assert_eq!(elsewhere.installs(), "");
    let linked = Machine::without(&[LIBRARY]);
    linked.file("usr/lib/x86_64-linux-gnu/libclang-14.so.14.0.6");
    assert_eq!(linked.installs(), "");
}

#[test]
fn what_is_missing_is_asked_for_and_nothing_else() {
    for (missing, packages) in [
        (&["cmake"][..], "cmake"),
        (&["c++"], "g++"),
        (&[LIBRARY, HEADERS], "clang libclang-dev"),
        (&["cmake", "c++", LIBRARY, HEADERS], "cmake g++ clang libclang-dev"),
    ] {
        assert_eq!(Machine::without(missing).installs(), packages, "without {missing:?}");
    }
}

/// bindgen reads headers that include stddef.h, which is clang's own.
#[test]
fn a_libclang_without_its_headers_is_not_enough() {
    assert_eq!(Machine::without(&[HEADERS]).installs(), "clang libclang-dev");
}

#[test]
fn the_library_of_clangs_cpp_interface_is_no_libclang() {
    let machine = Machine::without(&[LIBRARY]);
    machine.file("usr/lib/x86_64-linux-gnu/libclang-cpp.so.14");
    assert_eq!(machine.installs(), "clang libclang-dev");
}

#[test]
fn who_is_not_root_installs_by_sudo() {
    let machine = Machine::without(&["cmake"]);
    machine.program("id", "echo 1000");
    let (output, asked) = machine.tools();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(asked, ["sudo", "apt-get update -qq", "sudo", "apt-get install -y -qq cmake"]);
}

#[test]
fn what_it_cannot_install_it_names() {
    for (missing, says) in [
        (&["cmake", "apt-get"][..], "error: missing: cmake; install them with this system's package manager"),
        (&["cmake", "cargo"], "error: cargo is missing; install Rust from rustup.rs"),
    ] {
        let (output, asked) = Machine::without(missing).tools();
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && complaint.starts_with(says), "{complaint}");
        assert_eq!(asked, Vec::<String>::new());
    }
}
