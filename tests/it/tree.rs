//! The tree keeps its promises: what lies at the top, which room may know which, what appears nowhere.
//!
//! Rules are read off the sources' own words. Comments, texts in quotes and everything from `#[cfg(test)]` on are left
//! out first, so that a rule is about the program and not about what is said of it.

use std::path::Path;

use crate::repository::{entries, files_below, files_named, root, text};

/// What may lie at the top (issue of the first form, item 1), and whether it must.
const TOP: [(&str, bool); 21] = [
    ("Cargo.toml", true),
    ("Cargo.lock", true),
    ("src", true),
    ("docker-compose.yml", true),
    ("config", true),
    ("tests", true),
    ("grafana", true),
    ("README.md", true),
    ("docs", true),
    ("examples", true),
    ("scripts", true),
    ("clients", true),
    ("packaging", true),
    ("LICENSE", true),
    ("CHANGELOG.md", true),
    ("CONTRIBUTING.md", true),
    (".ci", true),
    ("bench", false),
    ("fuzz", true),
    ("clippy.toml", true),
    ("rustfmt.toml", true),
];

/// Settings of tools that have no other place than the top.
const TOOL_SETTINGS: [&str; 3] = [".gitignore", ".dockerignore", "deny.toml"];

/// Lines of a file that needs no reason for its length.
const LINES_MAX: usize = 800;

/// Words that a room must not use, each room with the reason.
struct Absence {
    /// Files whose path begins so.
    room: &'static str,
    /// Except those whose path begins so.
    except: &'static [&'static str],
    /// Words, as they stand in code; one that ends in `::` is a room on a path.
    words: &'static [&'static str],
    /// Why.
    reason: &'static str,
}

const ASYNC: [&str; 5] = ["tokio", "async", "await", "Instant::now", "SystemTime"];
const SOCKETS: [&str; 9] = [
    "TcpListener",
    "TcpStream",
    "TcpSocket",
    "UdpSocket",
    "UnixListener",
    "UnixStream",
    "UnixDatagram",
    "socket2",
    "mio",
];

const ABSENCES: [Absence; 12] = [
    Absence { room: "src/model/", except: &[], words: &ASYNC, reason: "the model is plain data" },
    Absence {
        room: "src/model/",
        except: &[],
        words: &[
            "hub::",
            "protocol::",
            "session::",
            "auth::",
            "source::",
            "embedded::",
            "transport::",
            "config::",
            "app::",
        ],
        reason: "the model knows no other room",
    },
    Absence {
        room: "src/hub/",
        except: &[],
        words: &["protocol::", "transport::", "session::", "source::", "embedded::", "app::", "cli::", "http", "hyper"],
        reason: "the hub names no protocol, no transport and no HTTP type",
    },
    Absence { room: "src/protocol/", except: &[], words: &ASYNC, reason: "codecs have no I/O and no clock" },
    Absence {
        room: "src/protocol/",
        except: &[],
        words: &["hub::", "session::", "source::", "embedded::", "transport::", "app::", "cli::", "hyper"],
        reason: "codecs know the model only",
    },
    Absence { room: "src/session/", except: &[], words: &ASYNC, reason: "a session has no I/O and no clock" },
    Absence {
        room: "src/session/",
        except: &[],
        words: &["hub::", "source::", "embedded::", "transport::", "app::", "cli::", "hyper"],
        reason: "a session knows what it is told, not who tells it",
    },
    Absence {
        room: "src/source/",
        except: &[],
        words: &["hub::shard", "hub::turn", "hub::index", "hub::log", "session::", "transport::", "app::", "cli::"],
        reason: "a source sees the feed, the interest and the way up only",
    },
    Absence {
        room: "src/",
        except: &["src/transport/", "src/source/amqp/", "src/embedded/", "src/cli/"],
        words: &SOCKETS,
        reason: "sockets are touched by transports, the AMQP source, the embedded listener and the clients of the command line",
    },
    Absence {
        room: "src/",
        except: &[],
        words: &["unbounded_channel", "unbounded", "UnboundedSender", "UnboundedReceiver", "std::sync::mpsc::channel"],
        reason: "every queue has a named bound",
    },
    Absence {
        room: "src/",
        except: &["src/config/load", "src/cli/"],
        words: &["env::var", "env::var_os", "env::vars", "env::vars_os"],
        reason: "the environment is read in one place",
    },
    Absence {
        room: "src/",
        except: &[],
        words: &["OnceLock", "LazyLock", "OnceCell", "LazyCell", "lazy_static", "thread_local", "static mut"],
        reason: "there is no global state",
    },
];

#[test]
fn the_top_holds_what_it_should_and_nothing_else() {
    let present: Vec<String> = entries(root())
        .iter()
        .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .collect();
    for name in &present {
        let known = TOP.iter().any(|(known, _)| known == name) || TOOL_SETTINGS.contains(&name.as_str());
        assert!(known, "{name} lies at the top: put it into the folder where it belongs");
    }
    for (name, _) in TOP.iter().filter(|(_, needed)| *needed) {
        assert!(present.iter().any(|present| present == name), "{name} is missing at the top");
    }
}

#[test]
fn rooms_know_only_what_they_may() {
    let mut found = Vec::new();
    for path in files_named("src", ".rs") {
        let name = path.to_string_lossy().into_owned();
        if is_test(&name) {
            continue;
        }
        let code = code_of(&text(&path));
        for absence in ABSENCES.iter().filter(|absence| absence.covers(&name)) {
            let words = absence.words.iter().filter(|word| uses(&code, word));
            found.extend(words.map(|word| format!("{name} uses `{word}`, but {}", absence.reason)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_source_file_says_what_it_is_and_long_ones_why() {
    for path in files_named("", ".rs") {
        let text = text(&path);
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        let name = path.display();
        assert!(!head.is_empty(), "{name} does not say in its first lines what it is");
        let lines = text.lines().count();
        let reason = head.iter().any(|line| line.starts_with("//! Long because "));
        assert!(
            lines <= LINES_MAX || reason,
            "{name} has {lines} lines: split it by idea, or give it a head line `//! Long because …`"
        );
    }
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // In pieces, so that this file does not find itself.
    let paths = [["/wo", "rk/"], ["/ro", "ot/"], ["/tm", "p/"]].map(|pieces| pieces.concat());
    for path in files_below("") {
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            let machine = paths.iter().find(|machine| line.contains(machine.as_str()));
            assert_eq!(machine, None, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut dead = Vec::new();
    for path in files_named("", ".md") {
        let text = text(&path);
        for target in links_of(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target.as_str(), ""));
            let folder = path.parent().unwrap_or(Path::new(""));
            let file = if file.is_empty() { path.clone() } else { folder.join(file) };
            let there = root().join(&file).exists();
            let anchored =
                anchor.is_empty() || (there && anchors_of(&crate::repository::text(&file)).any(|it| it == anchor));
            if !there || !anchored {
                dead.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

impl Absence {
    fn covers(&self, file: &str) -> bool {
        file.starts_with(self.room) && !self.except.iter().any(|exception| file.starts_with(exception))
    }
}

/// Files that are compiled for tests only.
fn is_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}

/// A source without comments, texts in quotes, and everything from its first `#[cfg(test)]` on.
fn code_of(source: &str) -> String {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut code = String::with_capacity(source.len());
    for line in source.lines() {
        code.push_str(&without_texts(line));
        code.push('\n');
    }
    code
}

/// A line up to its comment, with texts in quotes emptied. Texts over several lines do not occur here unless their
/// lines end in `\`, and what is said in them is code to this test: the worst is a false alarm.
fn without_texts(line: &str) -> String {
    let mut code = String::new();
    let mut characters = line.chars().peekable();
    let mut quoted = false;
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            '\'' if !quoted && characters.peek() == Some(&'"') => drop(characters.next()),
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            _ if quoted => {}
            _ => code.push(character),
        }
    }
    code
}

/// Whether a word stands in code by itself: not as part of a longer name.
fn uses(code: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code.get(..start).and_then(|before| before.chars().next_back());
        let after = code.get(start + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(part) && (word.ends_with("::") || !after.is_some_and(part))
    })
}

/// Targets of `[text](target)`, outside of code.
fn links_of(markdown: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        let outside: String = line.split('`').step_by(2).collect();
        let targets = outside.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        links.extend(targets.map(|(target, _)| target.to_owned()));
    }
    links
}

/// Anchors that headings get: small letters, words joined by hyphens, punctuation dropped.
fn anchors_of(markdown: &str) -> impl Iterator<Item = String> {
    let headings = markdown.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept =
            title.chars().filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'));
        kept.map(|character| if character == ' ' { '-' } else { character }).collect()
    })
}

#[test]
fn the_reader_of_sources_is_not_fooled() {
    let source = "use tokio::net; // await\nlet text = \"unbounded \\\" socket2\"; let quote = '\"'; mio();\n#[cfg(test)]\nhyper";
    let code = code_of(source);
    assert!(uses(&code, "tokio") && uses(&code, "mio"));
    assert!(!uses(&code, "await") && !uses(&code, "unbounded") && !uses(&code, "socket2") && !uses(&code, "hyper"));
    assert!(!uses("mpsc::unbounded_channel", "unbounded"), "a part of a name is not the name");
    assert!(uses("use crate::hub::log::Log;", "hub::") && !uses("github::x", "hub::"));
}

#[test]
fn the_reader_of_links_is_not_fooled() {
    assert_eq!(links_of("a [b](c.md) and [d](e.md#f)\n`[x](y)`\n```\n[p](q)\n```"), ["c.md", "e.md#f"]);
    assert_eq!(anchors_of("# A `b` c: D\ntext\n## E-f").collect::<Vec<_>>(), ["a-b-c-d", "e-f"]);
}
