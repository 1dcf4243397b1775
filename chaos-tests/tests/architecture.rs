//! The plan of the house, checked: who may import whom, what the pure layers may not touch, and how long a file may be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::visit::{self, Visit};

/// Longest file, in lines, tests included.
const FILE_LINES_MAX: usize = 450;

/// Layers of a crate: a module path and all below it. The longest match counts.
type Layers = &'static [(&'static str, u8)];

const WORDS: u8 = 0;
const PURE: u8 = 1;
const EDGE: u8 = 2;
const WIRING: u8 = 3;

const NODE: Layers = &[
    ("", WIRING),
    ("limits", WORDS),
    ("smtp", WORDS),
    ("smtp::command", WORDS),
    ("smtp::reply", WORDS),
    ("smtp::transaction", WORDS),
    ("policy", WORDS),
    ("policy::evidence", WORDS),
    ("message", WORDS),
    ("checks", WORDS),
    ("actions", WORDS),
    ("smtp::session", PURE),
    ("smtp::session::order", PURE),
    ("smtp::admission", PURE),
    ("smtp::data", WORDS),
    ("smtp::fixed", WORDS),
    ("smtp::demand", WORDS),
    ("smtp::line", WORDS),
    ("smtp::open", PURE),
    ("smtp::extensions", WORDS),
    ("smtp::parameters", WORDS),
    ("smtp::xclient", WORDS),
    ("smtp::step", WORDS),
    ("checks::attachments", PURE),
    ("checks::calendar", PURE),
    ("checks::campaign", PURE),
    ("checks::content", PURE),
    ("checks::history", PURE),
    ("checks::impersonation", PURE),
    ("checks::learnt", PURE),
    ("checks::own_rules", PURE),
    ("policy::blocked", PURE),
    ("policy::score", PURE),
    ("policy::decide", PURE),
    ("policy::standing", PURE),
    ("policy::resolve", PURE),
    ("actions::headers", PURE),
    ("actions::hold", PURE),
    ("actions::notice", PURE),
    ("config", WIRING),
    ("smtp::stream", EDGE),
    ("checks::authentication", EDGE),
    ("checks::lists", EDGE),
    ("checks::virus", EDGE),
    ("checks::volume", EDGE),
    ("checks::opener", EDGE),
    ("actions::relay", EDGE),
    ("cluster", EDGE),
    ("door", EDGE),
    ("telemetry", EDGE),
    ("pipeline", WIRING),
    ("inspect", WIRING),
    ("health", WIRING),
    ("reputation", WIRING),
    // One room, but for the pure analyses of names.
    ("reception", WIRING),
    ("reception::names", PURE),
    ("learning", WIRING),
    ("redelivery", WIRING),
    ("smtp::places", EDGE),
    ("smtp::proxy", EDGE),
    ("smtp::tls", EDGE),
    ("smtp::connection", WIRING),
    ("smtp::server", WIRING),
];

const CONTROL: Layers = &[
    ("", WIRING),
    ("state", PURE),
    ("policy_files", PURE),
    ("state::store", EDGE),
    ("state::snapshot", WIRING),
    // One room: openraft's traits tie log, state machine and network together.
    ("raft", WIRING),
    ("bodies", EDGE),
    ("archive", WIRING),
    ("repair", WIRING),
    ("learning", WIRING),
    ("config", EDGE),
    ("telemetry", EDGE),
    ("rpc", WIRING),
    ("ctl", WIRING),
    ("server", WIRING),
];

/// What the words and the pure layers may not name.
const IMPURE: &[&str] = &[
    "async fn",
    "async move",
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "tracing::",
    "UnixMs::now",
    "Instant::now",
    "SystemTime",
    "rand::",
    "Ulid::new",
    "::fresh()",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // The fuzz targets are a workspace of their own, which has its own `target`.
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files.extend(sources(&path));
        } else if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `src/smtp/session.rs` is `smtp::session`; `mod.rs` is its folder; `lib.rs`, `main.rs` and binaries are the crate's root.
fn module_of(file: &Path, src: &Path) -> Vec<String> {
    let relative = file.strip_prefix(src).expect("below src").with_extension("");
    let parts: Vec<String> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match parts.last().map(String::as_str) {
        Some("lib" | "main") => Vec::new(),
        _ if parts.first().is_some_and(|first| first == "bin") => Vec::new(),
        Some("mod") => parts[..parts.len() - 1].to_vec(),
        _ => parts,
    }
}

fn room<'a>(module: &[String], layers: &'a [(&'a str, u8)]) -> (&'a str, u8) {
    let path = module.join("::");
    let within = |name: &str| name.is_empty() || path == name || path.starts_with(&format!("{name}::"));
    *layers.iter().filter(|(name, _)| within(name)).max_by_key(|(name, _)| name.len()).expect("the root matches")
}

/// Collects the paths that begin with `crate` or `super`, outside test modules.
struct Imports {
    module: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Imports {
    fn add(&mut self, path: &[String]) {
        let mut base = match path.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super") => self.module.clone(),
            _ => return,
        };
        for part in path {
            if part == "super" {
                base.pop();
            } else if part != "crate" {
                base.push(part.clone());
            }
        }
        self.found.push(base);
    }

    fn tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.tree(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, prefix)),
            syn::UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add(prefix);
                prefix.pop();
            }
            syn::UseTree::Rename(_) | syn::UseTree::Glob(_) => self.add(prefix),
        }
    }
}

/// Files that a `#[cfg(test)] mod name;` of this file names: they and what lies below them are tests.
fn test_files(file: &Path, text: &str) -> Vec<PathBuf> {
    let parent = file.parent().expect("a file lies in a folder");
    let stem = file.file_stem().expect("a file has a name").to_string_lossy();
    let below = if ["mod", "lib", "main"].contains(&&*stem) { parent.to_path_buf() } else { parent.join(&*stem) };
    let mut found = Vec::new();
    for item in syn::parse_file(text).expect("the file compiles, so it parses").items {
        if let syn::Item::Mod(module) = item
            && module.content.is_none()
            && is_test(&module.attrs)
        {
            let named = module.attrs.iter().filter(|attribute| attribute.path().is_ident("path"));
            let path = named.filter_map(path_of).next().map(|path| parent.join(path));
            let name = module.ident.to_string();
            found.extend(
                path.map_or_else(|| vec![below.join(format!("{name}.rs")), below.join(name)], |path| vec![path]),
            );
        }
    }
    found
}

/// The text of `#[path = "text"]`.
fn path_of(attribute: &syn::Attribute) -> Option<String> {
    let pair = attribute.meta.require_name_value().ok()?;
    let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }) = &pair.value else { return None };
    Some(path.value())
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "test")
    })
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add(&parts);
        visit::visit_path(self, path);
    }
}

/// Faults of one file against the layers of its crate.
fn faults_of(name: &str, text: &str, module: &[String], layers: Layers) -> Vec<String> {
    let mut faults = Vec::new();
    let (own_room, own_layer) = room(module, layers);
    let mut imports = Imports { module: module.to_vec(), found: Vec::new() };
    imports.visit_file(&syn::parse_file(text).expect("the file compiles, so it parses"));
    for import in imports.found {
        let (other_room, other_layer) = room(&import, layers);
        if other_room == own_room || other_room.is_empty() {
            continue;
        }
        let upward = other_layer > own_layer;
        let sibling_edge = own_layer == EDGE && other_layer == EDGE;
        if upward || sibling_edge {
            faults
                .push(format!("{name}: layer {own_layer} imports crate::{} of layer {other_layer}", import.join("::")));
        }
    }
    if own_layer <= PURE {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code_lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code_lines {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{name}: a pure layer names `{word}`: {}", line.trim()));
            }
        }
    }
    faults
}

#[test]
fn modules_import_only_from_lower_layers_and_pure_ones_do_no_io() {
    let mut faults = Vec::new();
    for (name, layers) in [("node", NODE), ("control", CONTROL)] {
        let src = root().join(name).join("src");
        let files = sources(&src);
        assert!(!files.is_empty(), "{name} has sources");
        let read = |file: &PathBuf| fs::read_to_string(file).expect("a source file is readable");
        let tests: Vec<PathBuf> = files.iter().flat_map(|file| test_files(file, &read(file))).collect();
        for file in files.into_iter().filter(|file| !tests.iter().any(|test| file.starts_with(test))) {
            let text = read(&file);
            let shown = file.strip_prefix(root()).expect("below the root").display().to_string();
            faults.extend(faults_of(&shown, &text, &module_of(&file, &src), layers));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_file_that_breaks_the_plan_is_found() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    let upward = faults_of("x", "use crate::smtp::{reply::Reply, server::Server};", &module("smtp::session"), NODE);
    assert_eq!(upward.len(), 1, "{upward:?}");
    let sibling = faults_of("x", "fn f() { crate::actions::relay::g() }", &module("checks::virus"), NODE);
    assert_eq!(sibling.len(), 1, "{sibling:?}");
    let relative = faults_of("x", "use super::connection::run;", &module("smtp::session"), NODE);
    assert_eq!(relative.len(), 1, "{relative:?}");
    let clock = faults_of("x", "fn f() { let t = std::time::Instant::now(); }", &module("state::held"), CONTROL);
    assert_eq!(clock.len(), 1, "{clock:?}");
    let tests =
        faults_of("x", "#[cfg(test)] mod tests { use crate::smtp::server::Server; }", &module("smtp::session"), NODE);
    assert!(tests.is_empty(), "{tests:?}");
}

#[test]
fn files_are_read_in_one_sitting_and_open_with_their_job() {
    let mut faults = Vec::new();
    for name in ["proto", "node", "control", "chaos-tests"] {
        for file in sources(&root().join(name)) {
            let text = fs::read_to_string(&file).expect("a source file is readable");
            let shown = file.strip_prefix(root()).expect("below the root").display().to_string();
            let lines = text.lines().count();
            if lines > FILE_LINES_MAX {
                faults.push(format!("{shown}: {lines} lines; {FILE_LINES_MAX} at most"));
            }
            if !text.starts_with("//!") {
                faults.push(format!("{shown}: does not open with its job (//!)"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn crates_know_only_those_they_may() {
    let may: &[(&str, &[&str])] = &[
        ("proto", &[]),
        ("node", &["proto"]),
        ("control", &["proto"]),
        ("chaos-tests", &["proto", "node", "control"]),
    ];
    for (name, allowed) in may {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest is readable");
        for other in ["proto", "node", "control", "chaos-tests"] {
            let named = manifest
                .lines()
                .any(|line| line.starts_with(&format!("{other}.")) || line.starts_with(&format!("{other} ")));
            assert!(!named || allowed.contains(&other), "{name} may not depend on {other}");
        }
    }
}

#[test]
fn the_top_level_is_as_the_owner_asked() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "README.md",
        "proto",
        "node",
        "control",
        "chaos-tests",
        "ansible",
        "target",
    ];
    for entry in fs::read_dir(root()).expect("the root is readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with('.') || allowed.contains(&name.as_str()), "{name} has no place at the top level");
    }
}
