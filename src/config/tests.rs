//! Mistakes by their exact words, precedence by cases, and passwords nowhere.

use std::path::PathBuf;

use super::*;

/// A configuration in the making: a file, variables and flags.
#[derive(Default)]
struct Case {
    folder: Option<tempfile::TempDir>,
    inputs: Inputs,
}

impl Case {
    fn file(text: &str) -> Self {
        Self::default().with_file(text)
    }

    fn with_file(mut self, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passerelle.toml");
        std::fs::write(&path, text).unwrap();
        self.inputs.file = Some(path);
        self.folder = Some(folder);
        self
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.inputs.environment.push((name.into(), text.into()));
        self
    }

    fn flag(mut self, name: &'static str, text: &str) -> Self {
        self.inputs.flags.push((name, text.into()));
        self
    }

    fn settings(&self) -> Settings {
        self.configuration().settings
    }

    fn configuration(&self) -> Configuration {
        read(&self.inputs).unwrap_or_else(|refused| panic!("{:#?}", refused.mistakes))
    }

    /// Mistakes as they are printed, the file's folder left out.
    fn mistakes(&self) -> Vec<String> {
        read(&self.inputs).map_or_else(|refused| self.lines(&refused.mistakes), |_| Vec::new())
    }

    fn warnings(&self) -> Vec<String> {
        let warnings = read(&self.inputs).map_or_else(|refused| refused.warnings, |read| read.warnings);
        self.lines(&warnings)
    }

    fn lines(&self, mistakes: &[Mistake]) -> Vec<String> {
        let folder = self.folder.as_ref().map(|folder| format!("{}/", folder.path().display())).unwrap_or_default();
        mistakes.iter().map(|mistake| mistake.to_string().replace(&folder, "")).collect()
    }
}

const BROKER: &str = "[amqp]\nurl = \"amqp://host\"\n";

/// Mistakes of a file that has a broker on its first two lines.
fn mistakes(text: &str) -> Vec<String> {
    Case::file(&format!("{BROKER}{text}")).mistakes()
}

fn revealed(settings: &Settings) -> Vec<&str> {
    settings.amqp.urls.iter().map(Secret::reveal).collect()
}

#[test]
fn nothing_configured_is_the_embedded_broker_and_one_source() {
    let settings = Case::default().variable("HOME", "anywhere").settings();
    assert_eq!(settings.embedded.as_ref().unwrap().listen.to_string(), "127.0.0.1:5672");
    assert_eq!(revealed(&settings), ["amqp://guest:guest@127.0.0.1:5672/%2f"]);
    assert_eq!(format!("{:?}", settings.sources), format!("{:?}", [Source::events()]));
    assert_eq!((settings.auth.anonymous, settings.auth.anonymous_publish), (None, None));
}

#[test]
fn the_table_holds_the_defaults_that_the_structs_have() {
    let mut settings = Case::default().flag("--amqp", "amqp://host").settings();
    settings.amqp.urls.clear();
    settings.amqp.node.clear();
    let defaults = Settings { sources: vec![Source::events()], ..Settings::default() };
    assert_eq!(format!("{settings:#?}"), format!("{defaults:#?}"));
    let embedded = Case::default().settings().embedded.unwrap();
    assert_eq!(format!("{embedded:?}"), format!("{:?}", Embedded::default()));
}

#[test]
fn anything_configured_without_a_broker_is_refused() {
    let sentence = "no RabbitMQ configured: set amqp.url, PASSERELLE_AMQP__URL or --amqp, or run with --embedded";
    assert_eq!(Case::file("").mistakes(), [sentence]);
    assert_eq!(Case::default().flag("--listen", "127.0.0.1:0").mistakes(), [sentence]);
    assert_eq!(Case::default().variable("PASSERELLE_LOGGING__FILTER", "debug").mistakes(), [sentence]);
    assert!(Case::default().variable("PORT", "9000").settings().embedded.is_some());
    assert!(Case::default().variable("PASSERELLE_TOKEN", "x").settings().embedded.is_some());
}

#[test]
fn later_wins_of_file_environment_and_flag() {
    let file = || Case::file("[amqp]\nurl = \"amqp://file\"\n[server]\nheartbeat = \"1m\"\n");
    assert_eq!(revealed(&file().settings()), ["amqp://file"]);
    let environment = || file().variable("PASSERELLE_AMQP__URL", "amqp://environment");
    assert_eq!(revealed(&environment().settings()), ["amqp://environment"]);
    let flag = environment().flag("--amqp", "amqp://flag").variable("AMQP_URL", "amqp://fallback");
    assert_eq!(revealed(&flag.settings()), ["amqp://flag"]);
    assert_eq!(flag.settings().server.heartbeat, Duration::from_secs(60));
    assert_eq!(revealed(&Case::default().variable("AMQP_URL", "amqp://fallback").settings()), ["amqp://fallback"]);
    assert_eq!(revealed(&file().variable("AMQP_URL", "amqp://fallback").settings()), ["amqp://file"]);
    // An empty variable, as compose files make them, is as good as none.
    assert_eq!(revealed(&file().variable("PASSERELLE_AMQP__URL", "").settings()), ["amqp://file"]);
}

#[test]
fn of_the_embedded_broker_and_an_address_the_later_wins() {
    let file = Case::file(BROKER).flag("--embedded", "true");
    assert!(file.settings().embedded.is_some());
    let fallback = Case::default().variable("AMQP_URL", "amqp://fallback").flag("--embedded", "true");
    assert_eq!(revealed(&fallback.settings()), ["amqp://guest:guest@127.0.0.1:5672/%2f"]);
    let address = Case::file("[embedded]\nenabled = true\n").flag("--amqp", "amqp://flag");
    assert!(address.settings().embedded.is_none());
    assert_eq!(
        mistakes("[embedded]\nenabled = true\n"),
        ["passerelle.toml:4: embedded.enabled: excludes amqp.url, set by passerelle.toml:2: keep one of them"]
    );
}

#[test]
fn port_and_host_replace_what_the_file_says_and_give_way_to_our_own_variable() {
    let listen = |case: Case| case.settings().server.listen.iter().map(ToString::to_string).collect::<Vec<_>>();
    let port = || Case::default().variable("PORT", "9000");
    assert_eq!(listen(port()), ["127.0.0.1:9000"]);
    assert_eq!(listen(port().variable("HOST", "0.0.0.0")), ["0.0.0.0:9000"]);
    assert_eq!(listen(port().variable("HOST", "annas-laptop").variable("IP", "::")), ["[::]:9000"]);
    let file = || Case::file("[amqp]\nurl = \"amqp://a\"\n[server]\nlisten = \"0.0.0.0:80\"\n");
    assert_eq!(listen(file().variable("PORT", "9000")), ["0.0.0.0:9000"]);
    assert_eq!(listen(file().variable("PORT", "1").variable("PASSERELLE_SERVER__LISTEN", "[::1]:2")), ["[::1]:2"]);
    assert_eq!(
        Case::default().variable("PORT", "http").mistakes(),
        ["PORT: server.listen is \"127.0.0.1:http\": \"http\" is not a port, which is a number up to 65535"]
    );
}

#[test]
fn every_mistake_is_named_with_file_line_and_key() {
    let text = "[server]\nlisten = \"8080\"\nhaertbeat = \"5s\"\nheartbeat = 25\nhead_bytes_max = \"1 KiB\"\n\
                [sever]\nlisten = 5\n[limits]\nlast_max = 0\n[source.orders]\nqueue = \"orders\"\nexchange = \"orders\"\n";
    assert_eq!(
        mistakes(text),
        [
            "passerelle.toml:4: server.listen is \"8080\": write address and port, such as \"127.0.0.1:8080\"",
            "passerelle.toml:5: server.haertbeat is not known: did you mean server.heartbeat?",
            "passerelle.toml:6: server.heartbeat is 25, which has no unit: write \"25s\" for seconds (units: ms, s, m, h, d)",
            "passerelle.toml:7: server.head_bytes_max is 1 KiB: the least is 8 KiB",
            "passerelle.toml:8: sever is not known: did you mean server?",
            "passerelle.toml:11: limits.last_max is 0: the least is 1",
            "passerelle.toml:13: source.orders.queue: stands beside exchange: a source reads one of them, so make two sources",
        ]
    );
}

#[test]
fn mistakes_of_sources() {
    for (text, expected) in [
        ("[source.x]\n", "3: source.x: reads nothing: set exchange = \"…\", queue = \"…\" or stream = \"…\""),
        (
            "[source.x]\nexchange = \"e\"\nretention_age = \"1m\"\n",
            "5: source.x.retention_age is no key of a source that reads an exchange: remove it",
        ),
        (
            "[source.\"a b\"]\nqueue = \"q\"\n",
            "3: source.\"a b\" is no name for a source: use ASCII letters, digits, _ and -, at most 64",
        ),
        (
            "[source.x]\nqueue = \"q\"\ntype = \"topic\"\n",
            "5: source.x.type is no key of a source that reads a queue: remove it",
        ),
        (
            "[source.x]\nexchange = \"e\"\nshared = true\n",
            "5: source.x.shared is no key of a source that reads an exchange: remove it",
        ),
        (
            "[source.x]\nexchange = \"e\"\ntype = \"topci\"\n",
            "5: source.x.type is \"topci\", which is none of \"topic\", \"direct\", \"fanout\", \"headers\": did you mean \"topic\"?",
        ),
        (
            "[source.x]\nexchange = \"e\"\nbindings = \"ondemand\"\n",
            "5: source.x.bindings is \"ondemand\": write \"on-demand\", \"all\", or a list such as [\"orders.#\"]",
        ),
        (
            "[source.x]\nexchange = \"e\"\nbindings = []\n",
            "5: source.x.bindings is empty: list at least one pattern, or write \"on-demand\" or \"all\"",
        ),
        (
            "[source.x]\nexchange = \"e\"\ntype = \"direct\"\nbindings = [\"a\", \"b.*\"]\n",
            "6: source.x.bindings: has \"b.*\", and a direct exchange knows no wildcards: list the routing keys",
        ),
        (
            "[source.x]\nexchange = \"e\"\ntopic = \"a.{queue}\"\n",
            "5: source.x.topic: has {queue}, and the source reads an exchange: use {exchange}",
        ),
        (
            "[source.x]\nexchange = \"amq.topic\"\ndeclare = true\n",
            "5: source.x.declare: cannot be done for amq.topic: RabbitMQ declares amq. exchanges itself",
        ),
        (
            "[source.x]\nexchange = \"\"\n",
            "4: source.x.exchange is empty, which is the default exchange, and nothing can be bound to that: read a queue",
        ),
        ("source = 5\n", "2: source is a table: write [source.NAME] and its keys below"),
    ] {
        expect_mistake(text, expected);
    }
}

fn expect_mistake(text: &str, expected: &str) {
    // A key outside tables must come before the first table.
    let found =
        if text.starts_with('[') { mistakes(text) } else { Case::file(&format!("\n{text}{BROKER}")).mistakes() };
    assert_eq!(found, [format!("passerelle.toml:{expected}")]);
}

#[test]
fn mistakes_of_streams() {
    for (text, expected) in [
        (
            "[source.x]\nstream = \"s\"\nqueue = \"q\"\nexchange = \"e\"\n",
            "5: source.x.queue: stands beside exchange: a source reads one of them, so make two sources",
        ),
        (
            "[source.x]\nqueue = \"s\"\nstream = \"s\"\n",
            "5: source.x.stream is the queue's name too: name the stream otherwise",
        ),
        (
            "[source.x]\nqueue = \"q\"\nstream = \"s\"\nbindings = \"all\"\n",
            "6: source.x.bindings is no key of a source that reads a queue through a stream: remove it",
        ),
        (
            "[source.x]\nstream = \"s\"\nexchange = \"e\"\nbindings = \"on-demand\"\n",
            "6: source.x.bindings is \"on-demand\", and a stream keeps what comes whoever listens: write \"all\" or a list",
        ),
        (
            "[source.x]\nstream = \"s\"\nbindings = \"all\"\n",
            "5: source.x.bindings is set, and there is no exchange to bind the stream to: set exchange too",
        ),
        (
            "[source.x]\nstream = \"s\"\nlinger = \"1m\"\n",
            "5: source.x.linger is no key of a source that reads a stream: remove it",
        ),
    ] {
        expect_mistake(text, expected);
    }
}

#[test]
fn mistakes_of_names_and_listeners() {
    for (text, expected) in [
        (
            "[server]\nlisten = [\"0.0.0.0:8090\", \"[::]:8090\"]\n",
            "4: server.listen: names [::]:8090, of which server.listen takes a part or all with 0.0.0.0:8090: change one",
        ),
        (
            "[server]\nunix_socket = \"Cargo.toml\"\n",
            "4: server.unix_socket: names \"Cargo.toml\", which is there and is no socket",
        ),
        (
            "[consume.\"my.queue\"]\nqueue = \"q\"\n",
            "3: consume.\"my.queue\" is no name for a consume: use ASCII letters, digits, _ and -, at most 64",
        ),
        (
            "[presence.\"a b\"]\npattern = \"a\"\n",
            "3: presence.\"a b\" is no name for a presence: use ASCII letters, digits, _ and -, at most 64",
        ),
        (
            "[route.\"x.y\"]\npattern = \"a\"\nexchange = \"e\"\n",
            "3: route.\"x.y\" is no name for a route: use ASCII letters, digits, _ and -, at most 64",
        ),
        (
            "[logging]\nfilter = \"inof\"\n",
            "4: logging.filter: has \"inof\", which is no level: did you mean info? Of one part it is written inof=debug",
        ),
        (
            "[logging]\nfilter = \"debug,passerelle\"\n",
            "4: logging.filter: has \"passerelle\", which is no level: write one of error, warn, info, debug, trace, off. \
             Of one part it is written passerelle=debug",
        ),
    ] {
        expect_mistake(text, expected);
    }
}

#[test]
fn streams_need_rabbitmq() {
    let streams = "[source.x]\nstream = \"s\"\n[source.y]\nqueue = \"q\"\nstream = \"t\"\n";
    let sentence =
        "needs RabbitMQ, for the embedded broker has no streams: set amqp.url, or read an exchange or a queue";
    let embedded = Case::file(&format!("[embedded]\nenabled = true\n{streams}"));
    let expected =
        [(4, 'x'), (7, 'y')].map(|(line, name)| format!("passerelle.toml:{line}: source.{name}.stream: {sentence}"));
    assert_eq!(embedded.mistakes(), expected);
    assert_eq!(Case::file(streams).flag("--amqp", "amqp://host").mistakes(), [""; 0]);
}

#[test]
fn mistakes_of_everything_else() {
    for (text, expected) in [
        ("[server]\nstatic_dir = \"nowhere\"\n", "4: server.static_dir: names \"nowhere\", which is not a folder"),
        ("[server]\nlisten = []\n", "4: server.listen is empty: name at least one address, such as \"127.0.0.1:8080\""),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"\n",
            "4: admin.listen is 127.0.0.1:8080, which server.listen takes too: change one",
        ),
        ("[call]\ntimeout = \"5m\"\n", "4: call.timeout is longer than call.timeout_max: lower it, or raise that"),
        (
            "[route.rpc]\npattern = \"rpc.#\"\n",
            "3: route.rpc: needs route.rpc.exchange: the exchange that its topics go to",
        ),
        (
            "[route.a]\npattern = \"x.#\"\nexchange = \"e\"\n[route.b]\npattern = \"x.#.#\"\nexchange = \"e\"\n",
            "7: route.b.pattern is the pattern of route.a too: keep one of them",
        ),
        ("[consume.x]\ndeclare = true\n", "3: consume.x: needs consume.x.queue: the queue that clients may consume"),
        (
            "[consume.x]\nqueue = \"inbox{user}\"\n",
            "4: consume.x.queue: may hold braces only as {user}, a whole word between dots, as in \"inbox.{user}\"",
        ),
        (
            "[consume.x]\nqueue = \"x.{user}\"\n[consume.y]\nqueue = \"x.admin\"\n",
            "6: consume.y.queue: could name the queue of consume.x too: change one of them",
        ),
        (
            "[consume.x]\nqueue = \"x\"\nexpires = \"1d\"\n",
            "5: consume.x.expires is for queues that passerelle declares: set consume.x.declare = true too",
        ),
        (
            "[consume.x]\nqueue = \"x\"\ndeclare = true\nexpires = \"50d\"\n",
            "6: consume.x.expires is longer than the 49 days that RabbitMQ can count: lower it, or remove it",
        ),
        (
            "[auth]\nanonymous = false\nanonymous_publish = true\n",
            "5: auth.anonymous_publish: lets clients publish whom auth.anonymous = false does not let in: set both to true, \
             or this to false",
        ),
        (
            "[logging]\nfilter = \"info,x=loud\"\n",
            "4: logging.filter is \"info,x=loud\", which is no filter: write a level such as info, or \
             info,passerelle::source=debug",
        ),
        ("[server\nlisten = 5\n", "3: unclosed table, expected `]`: this is not TOML"),
    ] {
        assert_eq!(mistakes(text), [format!("passerelle.toml:{expected}")]);
    }
    let spoken = crate::protocol::negotiate::spoken_here().join(", ");
    assert_eq!(
        mistakes("[alias]\n\"events.example.org\" = \"passerelle.v1.jsn\"\n"),
        [format!(
            "passerelle.toml:4: alias.\"events.example.org\": stands for \"passerelle.v1.jsn\", which is none of {spoken}: \
             did you mean passerelle.v1.json?"
        )]
    );
    assert_eq!(
        Case::default().flag("--listen", "nowhere").flag("--amqp", "amqp://h").mistakes(),
        ["--listen: server.listen is \"nowhere\": write address and port, such as \"nowhere:8080\""]
    );
    assert_eq!(
        Case::default().variable("PASSERELLE_AMQP_URL", "amqp://h").mistakes(),
        [
            "PASSERELLE_AMQP_URL is not known: did you mean PASSERELLE_AMQP__URL?",
            "no RabbitMQ configured: set amqp.url, PASSERELLE_AMQP__URL or --amqp, or run with --embedded",
        ]
    );
    let absent = Inputs { file: Some(PathBuf::from("absent.toml")), ..Inputs::default() };
    let refused = read(&absent).unwrap_err();
    assert_eq!(refused.mistakes.len(), 1);
    assert!(refused.mistakes[0].to_string().starts_with("absent.toml: cannot be read: "));
}

#[test]
fn mistakes_of_presence() {
    for (text, expected) in [
        ("[presence.x]\njoin_leave = true\n", "3: presence.x: needs presence.x.pattern: the patterns that it is for"),
        (
            "[presence.x]\npattern = \"a.#\"\n[presence.y]\npattern = \"a.#.#\"\n",
            "6: presence.y.pattern is the pattern of presence.x too: keep one of them",
        ),
    ] {
        assert_eq!(mistakes(text), [format!("passerelle.toml:{expected}")]);
    }
}

#[test]
fn what_works_but_may_not_be_meant_is_a_warning() {
    let warnings = |text: &str| Case::file(&format!("{BROKER}{text}")).warnings();
    assert_eq!(
        warnings("[source.a]\nexchange = \"e\"\n[source.b]\nexchange = \"e\"\nbindings = [\"x.#\"]\n"),
        [
            "passerelle.toml:6: source.b.exchange: \"e\" is read by source.a too: subscribers get messages on x.# twice, once \
          from each"
        ]
    );
    let apart =
        "[source.a]\nexchange = \"e\"\nbindings = [\"y.#\"]\n[source.b]\nexchange = \"e\"\nbindings = [\"x.#\"]\n";
    assert!(warnings(apart).is_empty());
    assert_eq!(
        warnings("[source.a]\nqueue = \"q\"\n[source.b]\nqueue = \"q\"\n"),
        ["passerelle.toml:6: source.b.queue: \"q\" is read by source.a too: each message goes to one of the two"]
    );
    assert_eq!(
        warnings("[route.a]\npattern = \"long.#\"\nexchange = \"e\"\n[route.b]\npattern = \"#.x\"\nexchange = \"e\"\n"),
        [
            "passerelle.toml:7: route.b.pattern: #.x overlaps long.# of route.a: topics that match both go by route.a, whose \
          pattern says more"
        ]
    );
    assert_eq!(
        warnings("[source.a]\nqueue = \"q\"\n[consume.b]\nqueue = \"q\"\nhold_max = \"30m\"\n"),
        [
            "passerelle.toml:6: consume.b.queue is the queue of source.a too, which takes part of its messages: give each a \
             queue of its own",
            "passerelle.toml:7: consume.b.hold_max is not below 30 minutes, after which RabbitMQ takes back all that a \
             client holds, unless its consumer_timeout says otherwise"
        ]
    );
    assert!(warnings("[server]\nlisten = \"0.0.0.0:80\"\n")[0].contains("set auth.anonymous = true"));
    assert!(warnings("[server]\nlisten = \"0.0.0.0:80\"\n[auth]\nanonymous = true\n").is_empty());
    for (text, place) in [
        ("[server]\nunix_socket = \"/run/p.sock\"\n", "4: server.unix_socket: a Unix socket is there for a proxy"),
        ("[admin]\nlisten = \"[::]:8081\"\n", "4: admin.listen: [::]:8081 is not on loopback"),
    ] {
        let [warning] = &warnings(text)[..] else { panic!("one warning of {text}") };
        assert!(warning.contains(place) && warning.contains("set auth.anonymous = true"), "{warning}");
    }
    assert_eq!(
        Case::file("[amqp]\nurl = \"amqp://u:secret@h/%2f?heartbeat=5\"\n").warnings(),
        [
            "passerelle.toml:2: amqp.url: amqp://u:***@h/%2f?heartbeat=5 sets heartbeat, which the keys of [amqp] decide here: \
          leave it out"
        ]
    );
    assert!(Case::file("[amqp]\nurl = \"amqp://u:secret@h/\"\n").warnings()[0].contains("the default vhost is /%2f"));
}

#[test]
fn a_longest_time_lowers_the_usual_one_that_nobody_set() {
    let case = || Case::file(&format!("{BROKER}[poll]\ntimeout_max = \"3s\"\n[call]\ntimeout_max = \"2s\"\n"));
    let settings = case().settings();
    let times = [settings.poll.timeout, settings.poll.timeout_max, settings.call.timeout, settings.call.timeout_max];
    assert_eq!(times.map(|time| time.as_secs()), [3, 3, 2, 2]);
    let unchanged = Case::file(&format!("{BROKER}[poll]\ntimeout_max = \"1m\"\n")).settings();
    assert_eq!(unchanged.poll.timeout, Settings::default().poll.timeout);
    assert_eq!(
        mistakes("[poll]\ntimeout = \"4s\"\ntimeout_max = \"3s\"\n"),
        ["passerelle.toml:4: poll.timeout is longer than poll.timeout_max: lower it, or raise that"]
    );
}

#[test]
fn a_whole_configuration_settles() {
    let settings = Case::file(&format!(
        "{BROKER}[server]\nlisten = [\"[::]:8080\", \"localhost:9090\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
         allowed_origins = \"https://example.org\"\n[admin]\nlisten = \"off\"\n\
         [source.orders]\nqueue = \"orders\"\ntopic = \"orders.{{routing_key}}\"\nlog.age_max = \"1h\"\n\
         [source.events]\nexchange = \"e\"\nlog.age_max = \"1h\"\nrejected = \"dead-letter\"\nframes = \"text\"\n\
         [source.audit]\nexchange = \"logs\"\ntype = \"fanout\"\n\
         [source.work]\nqueue = \"jobs\"\nstream = \"jobs.stream\"\nretention_age = \"1h\"\nshared = true\n\
         [auth]\nanonymous = true\n[alias]\n\"events.example.org\" = \"passerelle.v1.raw\"\n"
    ))
    .settings();
    assert_eq!(settings.server.listen.len(), 2);
    assert!(settings.admin.listen.is_none());
    let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["audit", "events", "orders", "work"]);
    let Input::Exchange(audit) = &settings.sources[0].input else { panic!("audit reads an exchange") };
    assert_eq!((audit.kind, &audit.bindings), (ExchangeKind::Fanout, &Bindings::All));
    let Input::Exchange(events) = &settings.sources[1].input else { panic!("events reads an exchange") };
    assert_eq!(events.linger, Duration::from_secs(3600));
    assert_eq!((settings.sources[1].frames, settings.sources[1].rejected), (RawFrames::Text, Rejected::DeadLetter));
    assert!(matches!(&settings.sources[2].input, Input::Queue(queue) if queue.queue == "orders"));
    let Input::Stream(work) = &settings.sources[3].input else { panic!("work reads a stream") };
    let queue = QueueInput { queue: "jobs".into(), shared: true, declare: false };
    assert_eq!((work.stream.as_str(), &work.supply, work.declare), ("jobs.stream", &Supply::Queue(queue), true));
    assert_eq!(work.retention_age, Duration::from_hours(1));
    assert_eq!(settings.aliases["events.example.org"], "passerelle.v1.raw");
    assert_eq!(settings.auth.anonymous, Some(true));
}

#[test]
fn the_address_may_stand_in_a_file_of_its_own() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "\n amqp://u:secret@host/v \n").unwrap();
    let path = secret.path().to_str().unwrap();
    let case = || Case::file("").variable("PASSERELLE_AMQP__URL_FILE", path);
    assert_eq!(revealed(&case().settings()), ["amqp://u:secret@host/v"]);
    assert_eq!(revealed(&case().flag("--amqp", "amqp://flag").settings()), ["amqp://flag"]);
    assert_eq!(
        case().variable("PASSERELLE_AMQP__URL", "amqp://other").mistakes(),
        ["PASSERELLE_AMQP__URL_FILE: amqp.url_file: stands beside amqp.url: keep one of them"]
    );
    let absent = Case::file("[amqp]\nurl_file = \"absent\"\n").mistakes();
    assert_eq!(absent.len(), 1);
    assert!(absent[0].starts_with("passerelle.toml:2: amqp.url_file: names \"absent\", which cannot be read: "));
}

#[test]
fn passwords_are_printed_nowhere() {
    for url in [
        "\"amqp://anna:secret@host/\"",
        "[\"amqp://anna:secret@host\", \"amqps://anna:secret@host:x\"]",
        "\"anna:secret@host\"",
        "\"http://anna:secret@host\"",
        "\"amqp://anna:secret\"",
        "\"amqp://anna:12/secret@host\"",
        "[\"amqp://anna:secret@host\"",
        "amqp://anna:secret@host",
        "\"amqp://anna:secret@host",
        "{ host = \"secret\" }",
    ] {
        let case = Case::file(&format!("[amqp]\nurl = {url}\n"));
        let printed = match read(&case.inputs) {
            Ok(configuration) => format!("{} {:?}", show::effective(&configuration), configuration.settings),
            Err(_) => String::new(),
        };
        let all = format!("{printed} {:?} {:?}", case.mistakes(), case.warnings());
        assert!(!all.contains("secret@") && !all.contains(":secret") && !all.contains("\"secret"), "{url}: {all}");
    }
}

#[test]
fn the_effective_configuration_names_origins_and_can_be_read_again() {
    let case = Case::file("[amqp]\nurl = \"amqp://anna:secret@host\"\n[source.orders]\nqueue = \"q\"\n")
        .variable("PASSERELLE_SERVER__HEARTBEAT", "5s")
        .flag("--listen", "[::1]:80");
    let shown =
        show::effective(&case.configuration()).replace(case.folder.as_ref().unwrap().path().to_str().unwrap(), "");
    for line in [
        "url = \"amqp://anna:***@host\" # /passerelle.toml:2",
        "heartbeat = \"5s\" # PASSERELLE_SERVER__HEARTBEAT",
        "listen = \"[::1]:80\" # --listen",
        "strict = false # default",
        "node = \"node\" # host name",
        "log.age_max = \"10m\" # default",
    ] {
        let found = shown.lines().any(|shown| shown.split_whitespace().eq(line.split_whitespace()));
        assert!(found, "{line} is not in\n{shown}");
    }
    assert!(shown.contains("[source.orders]\n") && !shown.contains("bindings") && !shown.contains("[embedded]"));
    assert!(Case::file(&shown).mistakes().is_empty());
    let embedded = show::effective(&Case::default().configuration());
    assert!(
        embedded.contains("url = \"amqp://guest:***@127.0.0.1:5672/%2f\"")
            && embedded.contains("# nothing is configured")
    );
}

#[test]
fn every_configuration_that_we_ship_has_no_mistakes() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for name in ["config/compose.toml", "config/passerelle.toml"] {
        let inputs = Inputs {
            file: Some(root.join(name)),
            flags: vec![("--amqp", "amqp://user:password@rabbitmq:5672/%2f".into())],
            ..Inputs::default()
        };
        let configuration = read(&inputs).unwrap_or_else(|refused| panic!("{name}: {:#?}", refused.mistakes));
        assert!(configuration.warnings.is_empty(), "{name}: {:?}", configuration.warnings);
    }
}
