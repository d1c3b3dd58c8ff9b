//! What nodes tell each other of presence, as bytes: one JSON object a message. Whoever may publish to the exchange can
//! write there, so nothing that is read is believed to be bounded or well-formed.

use serde::{Deserialize, Serialize};

use crate::model::presence::{Bulletin, Entry, MEMBER_BYTES_MAX, Member, Names, NodeId, Question};
use crate::model::topic::Pattern;

/// Version of this format: messages of another are not read.
const VERSION: u32 = 1;

/// Bytes of a message that is read at all; what a node writes is far smaller.
const BULLETIN_BYTES_MAX: usize = 1 << 20;

/// Members that one node can say it has on one pattern, so that sums stay sums.
const COUNT_MAX: u64 = u32::MAX as u64;

/// Stands for every node in a question.
const EVERYBODY: &str = "*";

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    node: String,
    number: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<WireEntry>,
    #[serde(default, skip_serializing_if = "is_not")]
    begins: bool,
    #[serde(default, skip_serializing_if = "is_not")]
    ends: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    asks: Vec<String>,
    #[serde(default, skip_serializing_if = "is_not")]
    farewell: bool,
}

/// Without `all`, `joined` and `left` the names are withheld.
#[derive(Serialize, Deserialize)]
struct WireEntry {
    pattern: String,
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<Vec<WireMember>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<Vec<WireMember>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<Vec<String>>,
}

/// Connection and user.
#[derive(Serialize, Deserialize)]
struct WireMember(String, Option<String>);

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_not(flag: &bool) -> bool {
    !flag
}

/// As bytes.
pub(super) fn write(bulletin: Bulletin) -> Vec<u8> {
    let asks = match bulletin.question {
        Question::Nobody => Vec::new(),
        Question::Nodes(nodes) => nodes.into_iter().map(name_of).collect(),
        Question::Everybody => vec![EVERYBODY.to_owned()],
    };
    let wire = Wire {
        version: VERSION,
        node: name_of(bulletin.node),
        number: bulletin.number,
        entries: bulletin.entries.into_iter().map(WireEntry::of).collect(),
        begins: bulletin.begins,
        ends: bulletin.ends,
        asks,
        farewell: bulletin.farewell,
    };
    // Texts, numbers and lists can always be written.
    serde_json::to_vec(&wire).unwrap_or_default()
}

/// From bytes, if they are a bulletin that a node can have sent.
pub(super) fn read(bytes: &[u8]) -> Option<Bulletin> {
    if bytes.len() > BULLETIN_BYTES_MAX {
        return None;
    }
    let wire: Wire = serde_json::from_slice(bytes).ok().filter(|wire: &Wire| wire.version == VERSION)?;
    let question = match &wire.asks[..] {
        [] => Question::Nobody,
        [one] if one == EVERYBODY => Question::Everybody,
        nodes => Question::Nodes(nodes.iter().map(|name| node_of(name)).collect::<Option<_>>()?),
    };
    Some(Bulletin {
        node: node_of(&wire.node)?,
        number: wire.number,
        entries: wire.entries.into_iter().map(WireEntry::read).collect::<Option<_>>()?,
        begins: wire.begins,
        ends: wire.ends,
        question,
        farewell: wire.farewell,
    })
}

fn name_of(node: NodeId) -> String {
    format!("{:016x}", node.0)
}

fn node_of(name: &str) -> Option<NodeId> {
    let is_one = name.len() == 16 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| u64::from_str_radix(name, 16).ok().map(NodeId)).flatten()
}

impl WireEntry {
    fn of(entry: Entry) -> Self {
        let member =
            |Member { connection, user }: Member| WireMember(connection.to_string(), user.map(|user| user.to_string()));
        let members = |members: Vec<Member>| Some(members.into_iter().map(member).collect());
        let texts = |texts: Vec<std::sync::Arc<str>>| texts.iter().map(|text| text.to_string()).collect();
        let (all, joined, left) = match entry.names {
            Names::Untold => (None, None, None),
            Names::Afresh(all) => (members(all), None, None),
            Names::Changed { joined, left } => (None, members(joined), Some(texts(left))),
        };
        Self { pattern: entry.pattern.to_string(), count: entry.count, all, joined, left }
    }

    fn read(self) -> Option<Entry> {
        let pattern = Pattern::parse(&self.pattern).ok()?;
        let names = match (self.all, self.joined, self.left) {
            (None, None, None) => Names::Untold,
            (Some(all), None, None) => Names::Afresh(members(all)?),
            (None, joined, left) => {
                let left = left.unwrap_or_default().into_iter().map(Into::into).collect();
                Names::Changed { joined: members(joined.unwrap_or_default())?, left }
            }
            _ => return None,
        };
        (self.count <= COUNT_MAX).then_some(Entry { pattern, count: self.count, names })
    }
}

fn members(wire: Vec<WireMember>) -> Option<Vec<Member>> {
    let members = wire
        .into_iter()
        .map(|WireMember(connection, user)| Member { connection: connection.into(), user: user.map(Into::into) });
    members.map(|member| (member.bytes() <= MEMBER_BYTES_MAX).then_some(member)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Names> {
        let member = (any::<String>(), option::of(any::<String>()));
        let member =
            member.prop_map(|(connection, user)| Member { connection: connection.into(), user: user.map(Into::into) });
        let connections = vec(any::<String>().prop_map(Into::into), 0..3);
        prop_oneof![
            Just(Names::Untold),
            vec(member.clone(), 0..3).prop_map(Names::Afresh),
            (vec(member, 0..3), connections).prop_map(|(joined, left)| Names::Changed { joined, left }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            (node, number) in any::<(u64, u64)>(),
            entries in vec(("[a-c.*#]{0,9}", any::<u32>(), names()), 0..4),
            (begins, ends, farewell) in any::<(bool, bool, bool)>(),
            asked in vec(any::<u64>(), 0..3),
            everybody in any::<bool>(),
        ) {
            let question = match (everybody, asked.is_empty()) {
                (true, _) => Question::Everybody,
                (false, true) => Question::Nobody,
                (false, false) => Question::Nodes(asked.into_iter().map(NodeId).collect()),
            };
            let entry = |(text, count, names): (String, u32, Names)| {
                Entry { pattern: Pattern::parse(&text).unwrap(), count: u64::from(count), names }
            };
            let entries = entries.into_iter().map(entry).collect();
            let bulletin = Bulletin { node: NodeId(node), number, entries, begins, ends, question, farewell };
            let bytes = write(bulletin.clone());
            let fits = bulletin.entries.iter().all(|entry| match &entry.names {
                Names::Afresh(members) | Names::Changed { joined: members, .. } => {
                    members.iter().all(|member| member.bytes() <= MEMBER_BYTES_MAX)
                }
                Names::Untold => true,
            });
            prop_assert_eq!(read(&bytes), fits.then_some(bulletin));
        }

        #[test]
        fn strangers_are_survived(bytes in vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(read(&bytes), None);
        }
    }

    #[test]
    fn what_no_node_sends_is_not_read() {
        let long = "x".repeat(MEMBER_BYTES_MAX + 1);
        let node = "00000000000000ff";
        for text in [
            format!("{{\"version\":2,\"node\":\"{node}\",\"number\":1}}"),
            "{\"version\":1,\"node\":\"ff\",\"number\":1}".to_owned(),
            "{\"version\":1,\"node\":\"+0000000000000ff\",\"number\":1}".to_owned(),
            format!("{{\"version\":1,\"node\":\"{node}\",\"number\":-1}}"),
            format!("{{\"version\":1,\"node\":\"{node}\",\"number\":1,\"asks\":[\"x\"]}}"),
            format!(
                "{{\"version\":1,\"node\":\"{node}\",\"number\":1,\"entries\":[{{\"pattern\":\"a\",\"count\":4294967296}}]}}"
            ),
            format!(
                "{{\"version\":1,\"node\":\"{node}\",\"number\":1,\
                 \"entries\":[{{\"pattern\":\"a\",\"count\":1,\"all\":[[\"{long}\",null]]}}]}}"
            ),
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        let least = format!("{{\"version\":1,\"node\":\"{node}\",\"number\":1}}");
        assert_eq!(read(least.as_bytes()).map(|bulletin| bulletin.node), Some(NodeId(255)));
    }
}
