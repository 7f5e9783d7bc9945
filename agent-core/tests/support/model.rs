//! What the agent has to answer to a request, worked out in the most pedestrian way: serde_json reads it, lists hold
//! it, strings compare it. It knows the order of the checks and the texts, and shares no line with the agent.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

/// What is expected.
pub enum Answer {
    /// This reply, with 0xFF before it or not.
    Exactly(bool, Value),
    /// Some result, with this `id`.
    Something(Option<Value>),
}

/// The answer to these bytes, if they are one JSON value and the model knows it.
pub fn answer(text: &[u8]) -> Option<Answer> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    reader.disable_recursion_limit();
    let node = Node::deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    if node.has_duplicates() {
        return Some(error("GenericError", "JSON parse error, duplicate key", None));
    }
    let Node::Object(members) = node else {
        return Some(error("GenericError", "QMP input must be a JSON object", None));
    };
    let member = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let id = member("id").map(Node::value);
    let generic = |text: &str| Some(error("GenericError", text, id.as_ref()));

    for (key, value) in &members {
        match (key.as_str(), value) {
            ("id", _) | ("execute", Node::Plain(Value::String(_))) | ("arguments", Node::Object(_)) => {}
            ("execute", _) => return generic("QMP input member 'execute' must be a string"),
            ("arguments", _) => return generic("QMP input member 'arguments' must be an object"),
            _ => return generic(&format!("QMP input member '{key}' is unexpected")),
        }
    }
    let Some(Node::Plain(Value::String(command))) = member("execute") else {
        return generic("QMP input lacks member 'execute'");
    };
    let arguments = match member("arguments") {
        Some(Node::Object(arguments)) => arguments.as_slice(),
        _ => &[],
    };
    let wanted: &[&str] = match command.as_str() {
        "guest-sync" | "guest-sync-delimited" => &["id"],
        "guest-ping"
        | "guest-info"
        | "guest-network-get-interfaces"
        | "guest-get-fsinfo"
        | "guest-suspend-disk"
        | "guest-suspend-ram"
        | "guest-suspend-hybrid" => &[],
        // It knows them, and this model does not.
        name if agent_core::Agent::<super::FakeGuest>::commands()
            .split(|byte| *byte == b'\n')
            .any(|known| known == name.as_bytes()) =>
        {
            return None;
        }
        _ => {
            let text = format!("The command {command} has not been found");
            return Some(error("CommandNotFound", &text, id.as_ref()));
        }
    };
    let mut number = 0;
    for name in wanted {
        number = match arguments.iter().find(|(key, _)| key == name) {
            None => return generic(&format!("Parameter '{name}' is missing")),
            Some((_, Node::Plain(Value::Number(value)))) if value.as_i64().is_some() => value.as_i64()?,
            // serde_json takes -0 for a float.
            Some((_, Node::Plain(value))) if value.as_f64() == Some(0.0) => return None,
            Some(_) => return generic(&format!("Invalid parameter type for '{name}', expected: integer")),
        };
    }
    if let Some((key, _)) = arguments.iter().find(|(key, _)| !wanted.contains(&key.as_str())) {
        return generic(&format!("Parameter '{key}' is unexpected"));
    }
    let delimited = command == "guest-sync-delimited";
    match command.as_str() {
        "guest-ping" => Some(Answer::Exactly(false, with_id(json!({ "return": {} }), id.as_ref()))),
        "guest-info" | "guest-network-get-interfaces" | "guest-get-fsinfo" => Some(Answer::Something(id)),
        _ if wanted.is_empty() => generic("the requested suspend mode is not supported by the guest"),
        _ => Some(Answer::Exactly(delimited, with_id(json!({ "return": number }), id.as_ref()))),
    }
}

fn error(class: &str, text: &str, id: Option<&Value>) -> Answer {
    Answer::Exactly(false, with_id(json!({ "error": { "class": class, "desc": text } }), id))
}

fn with_id(mut reply: Value, id: Option<&Value>) -> Value {
    if let Some(id) = id {
        reply["id"] = id.clone();
    }
    reply
}

/// A value with all members of its objects, in their order.
enum Node {
    Plain(Value),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn value(&self) -> Value {
        match self {
            Node::Plain(value) => value.clone(),
            Node::List(items) => items.iter().map(Node::value).collect(),
            Node::Object(members) => members.iter().map(|(key, value)| (key.clone(), value.value())).collect(),
        }
    }

    fn has_duplicates(&self) -> bool {
        match self {
            Node::Plain(_) => false,
            Node::List(items) => items.iter().any(Node::has_duplicates),
            Node::Object(members) => {
                let mut keys: Vec<&str> = members.iter().map(|(key, _)| key.as_str()).collect();
                keys.sort_unstable();
                keys.windows(2).any(|pair| pair[0] == pair[1])
                    || members.iter().any(|(_, value)| value.has_duplicates())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        struct Nodes;
        impl<'de> Visitor<'de> for Nodes {
            type Value = Node;

            fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                to.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Plain(Value::Null))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Node, E> {
                Ok(Node::Plain(value.into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Node::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Node::Object(object))
            }
        }
        reader.deserialize_any(Nodes)
    }
}
