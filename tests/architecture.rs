//! The shape of the source tree is a requirement, so it is a test.
//!
//! A module may import only modules of a strictly lower layer. The reasons are in ARCHITECTURE.md.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Layers from the bottom up. A new top-level module must be placed here or the test fails.
const LAYERS: &[&[&str]] = &[
    &["domain", "faults"],
    &["config", "db", "protocol", "telemetry", "verify"],
    &["audit", "redis_link"],
    &["chain", "discovery", "ledger", "limits", "lists", "merchants", "policies", "promises"],
    &["engine", "webhooks"],
    &["facilitator"],
    &["console", "http"],
    &["app"],
    &["cli"],
];

#[test]
fn modules_import_only_lower_layers() {
    let mut violations = Vec::new();
    for path in rust_files(&src()) {
        let Some(importer) = top_level_module(&path) else { continue };
        let importer_layer = layer_of(&importer);
        for imported in crate_imports(&read(&path)) {
            if imported != importer && layer_of(&imported) >= importer_layer {
                violations.push(format!("{}: {importer} -> {imported}", path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "upward or sideways imports:\n{}", violations.join("\n"));
}

/// What each layer may never see, DESIGN.md section 1: a module, and words that its code may not hold.
const ABSENCES: &[(&str, &[&str])] = &[
    ("domain", &["sqlx", "tokio", "reqwest", "actix_web", "async fn", "SystemTime", "Instant"]),
    ("verify", &["sqlx", "tokio", "reqwest", "actix_web", "async fn", "SystemTime", "Instant"]),
    ("protocol", &["sqlx", "tokio", "alloy::providers", "actix_web", "StatusCode", "async fn"]),
    ("ledger", &["actix_web"]),
    ("audit", &["actix_web", "SystemTime"]),
    ("limits", &["actix_web", "SystemTime", "tokio::spawn"]),
    ("lists", &["actix_web", "SystemTime", "tokio::spawn"]),
    ("merchants", &["actix_web"]),
    ("policies", &["actix_web", "SystemTime", "tokio::spawn"]),
    ("discovery", &["actix_web"]),
    ("chain", &["sqlx", "actix_web"]),
    ("promises", &["sqlx", "actix_web", "tokio::spawn"]),
    ("redis_link", &["sqlx", "actix_web", "SystemTime", "tokio::spawn"]),
    ("engine", &["actix_web", "SystemTime", "tokio::spawn"]),
    ("facilitator", &["actix_web", "SystemTime", "tokio::spawn", "StatusCode"]),
    ("http", &["sqlx", "alloy::providers", "SystemTime", "tokio::spawn"]),
];

#[test]
fn layers_do_not_see_what_they_must_not() {
    let mut violations = Vec::new();
    for path in rust_files(&src()) {
        let Some(module) = top_level_module(&path) else { continue };
        let code = without_comments(&read(&path));
        for (_, words) in ABSENCES.iter().filter(|(name, _)| *name == module) {
            for word in words.iter().filter(|word| code.contains(**word)) {
                violations.push(format!("{}: `{word}`", path.display()));
            }
        }
    }
    assert!(violations.is_empty(), "forbidden in their layer:\n{}", violations.join("\n"));
}

#[test]
fn unfinished_work_lives_in_the_tracker() {
    let notes: Vec<String> = rust_files(&src())
        .iter()
        .filter(|path| ["TODO", "FIXME", "XXX"].iter().any(|note| read(path).contains(note)))
        .map(|path| path.display().to_string())
        .collect();
    assert!(notes.is_empty(), "unfinished notes in:\n{}", notes.join("\n"));
}

fn src() -> PathBuf {
    std::env::var_os("ARCH_SRC")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), PathBuf::from)
}

fn layer_of(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("module `{module}` has no layer; add it to LAYERS"))
}

/// `src/engine/fees.rs` and `src/engine.rs` both belong to `engine`; the crate roots to none.
fn top_level_module(path: &Path) -> Option<String> {
    let first = path.strip_prefix(src()).unwrap().components().next().unwrap();
    let name = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap();
    (name != "main" && name != "lib").then(|| name.to_owned())
}

/// Top-level names after `crate::`, in paths and in `crate::{a::X, b::{Y, Z}}` groups.
fn crate_imports(source: &str) -> BTreeSet<String> {
    let code = without_comments(source);
    let mut names = BTreeSet::new();
    for (start, marker) in code.match_indices("crate::") {
        let rest = &code[start + marker.len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                names.extend(split_group(group).iter().filter_map(|item| leading_module(item)))
            }
            None => names.extend(leading_module(rest)),
        }
    }
    names
}

/// The comma-separated items of a `{…}` group, without descending into nested groups.
fn split_group(group: &str) -> Vec<String> {
    let (mut depth, mut items) = (0_u32, vec![String::new()]);
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            _ if depth == 0 => items.last_mut().unwrap().push(c),
            _ => (),
        }
    }
    items
}

fn without_comments(source: &str) -> String {
    source.lines().map(|l| l.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

fn leading_module(path: &str) -> Option<String> {
    let name: String = path
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit())
        .collect();
    let is_module = !name.is_empty() && !path.trim_start()[name.len()..].starts_with(['(', '!']);
    is_module.then_some(name)
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
