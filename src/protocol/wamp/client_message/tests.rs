//! What clients send: the specification's examples, and a table of what is wrong with the sentences that answer it.

use super::*;
use crate::protocol::Incoming;
use crate::protocol::wamp::options::Invoke;
use crate::protocol::wamp::reasons::{FEATURE_NOT_SUPPORTED, INVALID_ARGUMENT, OPTION_NOT_ALLOWED, PROTOCOL_VIOLATION};
use crate::protocol::wamp::serializer::Serializer;
use crate::protocol::wamp::uri::Policy;
use std::time::Duration;

fn read(json: &str) -> Result<ClientMessage, Refusal> {
    ClientMessage::read(Serializer::Json.decode(Incoming::Text(json)).unwrap())
}

fn id(number: u64) -> Id {
    Id::new(number).unwrap()
}

#[test]
fn hello_is_read() {
    let message = read(
        r#"[1, "somerealm", {"agent": "x-1", "roles": {"subscriber": {}, "callee": {"features": {"call_canceling": true}}},
            "authmethods": ["ticket", 7, "wampcra"], "authid": "joe", "unknown": 1}]"#,
    );
    let Ok(ClientMessage::Hello(hello)) = message else { panic!("{message:?}") };
    assert_eq!(hello.realm, "somerealm");
    assert_eq!(hello.agent.as_deref(), Some("x-1"));
    assert_eq!(hello.auth_id.as_deref(), Some("joe"));
    assert_eq!(hello.auth_methods, ["ticket", "wampcra"]);
    assert!(hello.announces("callee", "call_canceling"));
    assert!(!hello.announces("callee", "call_timeout"));
    assert!(!hello.announces("subscriber", "call_canceling"));
    assert!(!hello.announces("caller", "call_canceling"));
}

#[test]
fn sessions_end_with_a_reason() {
    let farewell =
        |reason: &str, message: Option<&str>| Farewell { reason: reason.into(), message: message.map(str::to_owned) };
    let shutdown = farewell("wamp.close.system_shutdown", Some("The host is shutting down now."));
    let json = r#"[6, {"message": "The host is shutting down now."}, "wamp.close.system_shutdown"]"#;
    assert_eq!(read(json), Ok(ClientMessage::Goodbye(shutdown)));
    let abort = farewell("x.y", None);
    assert_eq!(read(r#"[3, {}, "x.y", ["why"], {}]"#), Ok(ClientMessage::Abort(abort)));
    let authenticate = ClientMessage::Authenticate { signature: "secret!!!".into(), extra: Dict::default() };
    assert_eq!(read(r#"[5, "secret!!!", {}]"#), Ok(authenticate));
}

#[test]
fn subscribe_is_read_with_its_policy() {
    for (json, pattern, prefix, policy, get_retained) in [
        (r#"[32, 713845233, {}, "com.myapp.mytopic1"]"#, "com.myapp.mytopic1", None, Policy::Exact, false),
        (r#"[32, 1, {"match": "prefix"}, "a.b"]"#, "a.*.#", Some("a.b"), Policy::Prefix, false),
        (
            r#"[32, 1, {"match": "wildcard", "get_retained": true, "_last": 3}, "a..c"]"#,
            "a.*.c",
            None,
            Policy::Wildcard,
            true,
        ),
        (
            r#"[32, 1.0, {"match": "exact"}, "wamp.session.on_join"]"#,
            "wamp.session.on_join",
            None,
            Policy::Exact,
            false,
        ),
    ] {
        let Ok(ClientMessage::Subscribe(subscribe)) = read(json) else { panic!("{json}") };
        assert_eq!(subscribe.matching.pattern.as_str(), pattern);
        assert_eq!(subscribe.matching.prefix.as_deref(), prefix);
        assert_eq!(subscribe.options, SubscribeOptions { policy, get_retained });
        assert!(json.contains(&subscribe.uri) && json.contains(&subscribe.request.to_string()));
        assert_eq!(subscribe.dict.value("_last").is_some(), json.contains("_last"));
    }
    let unsubscribe = ClientMessage::Unsubscribe { request: id(85_346_237), subscription: id(5_512_315_355) };
    assert_eq!(read("[34, 85346237, 5512315355]"), Ok(unsubscribe));
}

#[test]
fn publish_is_read_with_its_payload() {
    let json = r#"[16, 239714735, {"acknowledge": true, "exclude_me": false, "disclose_me": true}, "com.myapp.mytopic1",
        [], {"color": "orange", "sizes": [23, 42, 7]}]"#;
    let Ok(ClientMessage::Publish(publish)) = read(json) else { panic!("{json}") };
    assert_eq!((publish.request, publish.topic.as_str()), (id(239_714_735), "com.myapp.mytopic1"));
    assert_eq!(publish.options, PublishOptions { acknowledge: true, exclude_me: false, retain: false });
    let sizes = Value::List([23, 42, 7].map(Value::Int).into());
    let keywords = Dict::default().with("color", Value::text("orange")).with("sizes", sizes);
    assert_eq!(publish.payload, Payload { arguments: vec![], keywords });

    let Ok(ClientMessage::Publish(publish)) = read(r#"[16, 1, {}, "a"]"#) else { panic!() };
    assert_eq!(publish.options, PublishOptions { acknowledge: false, exclude_me: true, retain: false });
    assert_eq!(publish.payload, Payload::default());
}

#[test]
fn calls_and_what_follows_them_are_read() {
    let json =
        r#"[48, 7814135, {"timeout": 1500, "receive_progress": true}, "com.myapp.user.new", ["johnny"], {"a": 1}]"#;
    let Ok(ClientMessage::Call(call)) = read(json) else { panic!("{json}") };
    assert_eq!((call.request, call.procedure.as_str()), (id(7_814_135), "com.myapp.user.new"));
    let options = CallOptions { timeout: Some(Duration::from_millis(1500)), receive_progress: true };
    assert_eq!(call.options, options);
    assert_eq!(call.payload.arguments, [Value::text("johnny")]);
    let Ok(ClientMessage::Call(call)) = read(r#"[48, 1, {"timeout": 0}, "wamp.session.count"]"#) else { panic!() };
    assert_eq!(call.options, CallOptions { timeout: None, receive_progress: false });

    for (json, mode) in [
        ("[49, 1, {}]", CancelMode::KillNoWait),
        (r#"[49, 1, {"mode": "skip"}]"#, CancelMode::Skip),
        (r#"[49, 1, {"mode": "kill"}]"#, CancelMode::Kill),
        (r#"[49, 1, {"mode": "killnowait"}]"#, CancelMode::KillNoWait),
    ] {
        assert_eq!(read(json), Ok(ClientMessage::Cancel { call: id(1), mode }));
    }
    let Ok(ClientMessage::Register(register)) = read(r#"[64, 25349185, {"invoke": "roundrobin"}, "a.b"]"#) else {
        panic!()
    };
    let options = RegisterOptions { policy: Policy::Exact, invoke: Invoke::RoundRobin, concurrency: None };
    assert_eq!(register.options, options);
    let unregister = ClientMessage::Unregister { request: id(788_923_562), registration: id(2_103_333_224) };
    assert_eq!(read("[66, 788923562, 2103333224]"), Ok(unregister));
    let yielded = Yield { invocation: id(6_131_533), progress: true, payload: Payload::one(Value::Int(30)) };
    assert_eq!(read(r#"[70, 6131533, {"progress": true}, [30]]"#), Ok(ClientMessage::Yield(yielded)));
    let error = InvocationError {
        invocation: id(6_131_533),
        details: Dict::default(),
        error: "com.myapp.error.object_write_protected".into(),
        payload: Payload {
            arguments: vec![Value::text("Object is write protected.")],
            keywords: Dict::default().with("severity", Value::Int(3)),
        },
    };
    let json = r#"[8, 68, 6131533, {}, "com.myapp.error.object_write_protected", ["Object is write protected."],
        {"severity": 3}]"#;
    assert_eq!(read(json), Ok(ClientMessage::Error(error)));
}

#[test]
fn violations_are_answered_in_words() {
    let roles = "HELLO needs a dict \"roles\" in its Details, with one of publisher, subscriber, caller, callee";
    for (json, sentence) in [
        ("{}", "a message is a list, not a dict"),
        ("7", "a message is a list, not 7"),
        ("[]", "a message begins with its type: this list is empty"),
        (r#"["HELLO"]"#, "a message begins with its type, an integer, not a string"),
        ("[-1]", "a message begins with its type, an integer, not -1"),
        ("[99]", "there is no message type 99"),
        ("[1]", "HELLO has 3 elements, not 1"),
        (r#"[2, 1, {}]"#, "WELCOME is for routers to send"),
        (r#"[1, 7, {}]"#, "HELLO needs a string as element 2 (Realm), not 7"),
        (r#"[1, "r", []]"#, "HELLO needs a dict as element 3 (Details), not a list"),
        (r#"[1, "r", {}]"#, roles),
        (r#"[1, "r", {"roles": {"broker": {}}}]"#, roles),
        (r#"[1, "r", {"roles": ["caller"]}]"#, roles),
        (r#"[16, 1, {}]"#, "PUBLISH has 4 to 6 elements, not 3"),
        (r#"[16, 1, {}, "a", [], {}, 1]"#, "PUBLISH has 4 to 6 elements, not 7"),
        (r#"[16, 0, {}, "a"]"#, "PUBLISH needs an id from 1 to 2^53 as element 2 (Request), not 0"),
        (
            r#"[16, 9007199254740993, {}, "a"]"#,
            "PUBLISH needs an id from 1 to 2^53 as element 2 (Request), not 9007199254740993",
        ),
        (r#"[16, 1.5, {}, "a"]"#, "PUBLISH needs an id from 1 to 2^53 as element 2 (Request), not 1.5"),
        (r#"[16, "1", {}, "a"]"#, "PUBLISH needs an id from 1 to 2^53 as element 2 (Request), not a string"),
        (r#"[16, 1, null, "a"]"#, "PUBLISH needs a dict as element 3 (Options), not null"),
        (r#"[16, 1, {}, ["a"]]"#, "PUBLISH needs a string as element 4 (Topic), not a list"),
        (r#"[16, 1, {}, "a", {}]"#, "PUBLISH needs a list as element 5 (Arguments), not a dict"),
        (r#"[16, 1, {}, "a", [], []]"#, "PUBLISH needs a dict as element 6 (ArgumentsKw), not a list"),
        (r#"[16, 1, {"acknowledge": 1}, "a"]"#, "PUBLISH takes true or false in the option \"acknowledge\", not 1"),
        (
            r#"[16, 1, {"ppt_scheme": "mqtt"}, "a"]"#,
            "PUBLISH has the option \"ppt_scheme\", which this router does not announce",
        ),
        (r#"[34, 1, true]"#, "UNSUBSCRIBE needs an id from 1 to 2^53 as element 3 (Subscription), not a bool"),
        (r#"[5, "\u0000AAAA", {}]"#, "AUTHENTICATE needs a string as element 2 (Signature), not binary"),
        (r#"[6, {}, 1]"#, "GOODBYE needs a string as element 3 (Reason), not 1"),
        (r#"[8, 48, 1, {}, "a"]"#, "ERROR of a client is about an INVOCATION, 68 as element 2 (Type), not 48"),
        (r#"[8, 68, 1, {}, "a b"]"#, "the error holds ' ', which a URI must not hold"),
        (
            r#"[49, 1, {"mode": "gently"}]"#,
            "CANCEL takes \"skip\", \"kill\" or \"killnowait\" in the option \"mode\", not \"gently\"",
        ),
        (r#"[49, 1, {"mode": 1}]"#, "CANCEL takes \"skip\", \"kill\" or \"killnowait\" in the option \"mode\", not 1"),
    ] {
        let expected = Refusal::Abort { reason: PROTOCOL_VIOLATION, message: sentence.into() };
        assert_eq!(read(json), Err(expected), "{json}");
    }
    let realm =
        Refusal::Abort { reason: INVALID_URI, message: "the realm holds ' ', which a URI must not hold".into() };
    assert_eq!(read(r#"[1, "a b", {"roles": {"caller": {}}}]"#), Err(realm));
}

#[test]
fn requests_are_answered_in_words() {
    let policy = "SUBSCRIBE takes \"exact\", \"prefix\" or \"wildcard\" in the option \"match\"";
    let empty = "the topic has an empty component: those are for subscriptions with \"match\": \"wildcard\"";
    let invoke = "\"single\", \"roundrobin\", \"random\", \"first\" or \"last\"";
    for (json, asked, reason, sentence) in [
        (
            r#"[32, 4, {"match": "regex"}, "a"]"#,
            Kind::Subscribe,
            INVALID_ARGUMENT,
            &*format!("{policy}, not \"regex\""),
        ),
        (r#"[32, 4, {"match": true}, "a"]"#, Kind::Subscribe, INVALID_ARGUMENT, &*format!("{policy}, not a bool")),
        (r#"[32, 4, {}, "a..b"]"#, Kind::Subscribe, INVALID_URI, empty),
        (
            r#"[32, 4, {"get_retained": "yes"}, "a"]"#,
            Kind::Subscribe,
            INVALID_ARGUMENT,
            "SUBSCRIBE takes true or false in the option \"get_retained\", not a string",
        ),
        (
            r#"[16, 4, {"acknowledge": true, "exclude_me": 0}, "a"]"#,
            Kind::Publish,
            INVALID_ARGUMENT,
            "PUBLISH takes true or false in the option \"exclude_me\", not 0",
        ),
        (
            r#"[16, 4, {"acknowledge": true, "eligible": []}, "a"]"#,
            Kind::Publish,
            OPTION_NOT_ALLOWED,
            "the option \"eligible\" is not offered: publish to a topic that only they may read",
        ),
        (
            r#"[16, 4, {"acknowledge": true}, "wamp.a"]"#,
            Kind::Publish,
            INVALID_URI,
            "the topic begins with \"wamp\", which is WAMP's own",
        ),
        (r#"[48, 4, {}, ""]"#, Kind::Call, INVALID_URI, "the procedure is empty"),
        (
            r#"[48, 4, {"timeout": -1}, "a"]"#,
            Kind::Call,
            INVALID_ARGUMENT,
            "CALL takes a number of milliseconds in the option \"timeout\", not -1",
        ),
        (
            r#"[48, 4, {"progress": true}, "a"]"#,
            Kind::Call,
            FEATURE_NOT_SUPPORTED,
            "calls in pieces are not offered: send one CALL without the option \"progress\"",
        ),
        (
            r#"[64, 4, {"invoke": "all"}, "a"]"#,
            Kind::Register,
            INVALID_ARGUMENT,
            &*format!("REGISTER takes {invoke} in the option \"invoke\", not \"all\""),
        ),
        (
            r#"[64, 4, {}, "wamp.a"]"#,
            Kind::Register,
            INVALID_URI,
            "the procedure begins with \"wamp\", which is WAMP's own",
        ),
    ] {
        let expected = Refusal::Answer { asked, request: id(4), reason, message: sentence.into() };
        assert_eq!(read(json), Err(expected), "{json}");
    }
}

#[test]
fn a_publisher_that_does_not_ask_is_not_told() {
    for (json, sentence) in [
        (r#"[16, 4, {}, "a b"]"#, "the topic holds ' ', which a URI must not hold"),
        (
            r#"[16, 4, {"acknowledge": false, "exclude": [1]}, "a"]"#,
            "the option \"exclude\" is not offered: publish to a topic that only they may read",
        ),
    ] {
        let refusal = read(json).unwrap_err();
        assert_eq!(refusal, Refusal::Silence { message: sentence.into() });
        assert_eq!(refusal.answer(), None);
    }
}

#[test]
fn refusals_become_messages() {
    let told = |json: &str| match read(json).unwrap_err().answer().unwrap().encode(Serializer::Json) {
        crate::protocol::Outbound::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        crate::protocol::Outbound::Binary(_) => panic!("JSON goes as text"),
    };
    let abort = r#"[3,{"message":"there is no message type 99"},"wamp.error.protocol_violation"]"#;
    assert_eq!(told("[99]"), abort);
    assert_eq!(told(r#"[48, 4, {}, ""]"#), r#"[8,48,4,{},"wamp.error.invalid_uri",["the procedure is empty"]]"#);
}
