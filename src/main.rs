//! The program's exit code and nothing else.

fn main() -> anyhow::Result<()> {
    let mut settings = passerelle::config::Settings::default();
    match std::env::args().nth(1) {
        Some(url) => settings.amqp.urls = vec![passerelle::config::Secret::new(url)],
        None => settings.embedded = Some(passerelle::config::Embedded::default()),
    }
    settings.sources.push(passerelle::config::Source::events());
    settings.server.shards = 1;
    passerelle::app::serve(settings)
}
