//! The tree that these tests look at: its folder, its files and their texts.

use std::fs;
use std::path::{Path, PathBuf};

/// Names that a build or an installation leaves behind; never part of the tree.
const LEFT_BEHIND: [&str; 4] = [".git", "target", "node_modules", "__pycache__"];

/// The folder of `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text, by its path from the top.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A YAML file's one document.
pub(crate) fn yaml(path: &str) -> serde_json::Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A TOML file.
pub(crate) fn toml(path: &str) -> toml::Table {
    text(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below a folder, by its path from the top.
pub(crate) fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(inside) = path.strip_prefix(root()) {
                found.push(inside.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// What a folder holds, without what was left behind there.
pub(crate) fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = read.map(|entry| entry.expect("the folder can be read").path());
    paths.filter(|path| !LEFT_BEHIND.iter().any(|name| path.ends_with(name))).collect()
}

/// Files below a folder whose names end so.
pub(crate) fn files_named(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut files = files_below(folder);
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files
}
