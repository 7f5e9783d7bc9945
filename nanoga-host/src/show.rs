//! Replies as people read them. What comes from the guest is shown without what a terminal would obey.

use comfy_table::{Table, presets};
use serde_json::Value;

/// `guest-info` with the host's name and `guest-get-osinfo` beside it.
pub fn info(info: &Value) -> String {
    let mut table = plain();
    let os = &info["os"];
    for (name, value) in [
        ("agent", &info["version"]),
        ("host name", &info["host"]["host-name"]),
        ("system", &os["pretty-name"]),
        ("kernel", &os["kernel-release"]),
        ("machine", &os["machine"]),
    ] {
        if let Some(value) = value.as_str() {
            table.add_row([name, &harmless(value)]);
        }
    }
    let empty = Vec::new();
    let commands = info["supported_commands"].as_array().unwrap_or(&empty);
    for (title, enabled) in [("commands", true), ("disabled", false)] {
        let named = commands.iter().filter(|command| command["enabled"] == enabled);
        let names: Vec<&str> = named.filter_map(|command| command["name"].as_str()).collect();
        if !names.is_empty() {
            table.add_row([title, &wrapped(&names)]);
        }
    }
    text(&table)
}

/// `guest-network-get-interfaces`, a line for each address.
pub fn interfaces(list: &Value) -> String {
    let mut table = plain();
    table.set_header(["INTERFACE", "HARDWARE", "ADDRESS"]);
    for interface in list.as_array().into_iter().flatten() {
        let mut name = harmless(interface["name"].as_str().unwrap_or_default());
        let mut hardware = harmless(interface["hardware-address"].as_str().unwrap_or_default());
        let addresses = interface["ip-addresses"].as_array().into_iter().flatten();
        let shown = addresses.map(|address| {
            format!("{}/{}", harmless(address["ip-address"].as_str().unwrap_or_default()), address["prefix"])
        });
        let shown: Vec<String> = shown.collect();
        if shown.is_empty() {
            table.add_row([&name, &hardware, "-"]);
        }
        for address in shown {
            table.add_row([&std::mem::take(&mut name), &std::mem::take(&mut hardware), &address]);
        }
    }
    text(&table)
}

/// Names, as many on a line as fit into a terminal beside their title.
fn wrapped(names: &[&str]) -> String {
    let mut lines = vec![String::new()];
    for (number, name) in names.iter().enumerate() {
        let comma = if number + 1 < names.len() { "," } else { "" };
        let name = format!("{}{comma}", harmless(name));
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = name,
            Some(line) if line.len() + 1 + name.len() <= 66 => *line += &format!(" {name}"),
            _ => lines.push(name),
        }
    }
    lines.join("\n")
}

/// Its lines, without the blanks around them.
fn text(table: &Table) -> String {
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line).trim_end())).collect()
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

/// Text of the guest's, without what a terminal would obey.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(text: &str) -> Vec<Vec<&str>> {
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn interfaces_have_a_line_for_each_address() {
        let list = json!([
            { "name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [
                { "ip-address": "127.0.0.1", "ip-address-type": "ipv4", "prefix": 8 },
                { "ip-address": "::1", "ip-address-type": "ipv6", "prefix": 128 } ] },
            { "name": "et\u{1b}h0" }
        ]);
        assert_eq!(
            words(&interfaces(&list)),
            [
                vec!["INTERFACE", "HARDWARE", "ADDRESS"],
                vec!["lo", "00:00:00:00:00:00", "127.0.0.1/8"],
                vec!["::1/128"],
                vec!["et?h0", "-"],
            ]
        );
    }

    #[test]
    fn info_names_what_is_disabled() {
        let reply = json!({ "version": "1", "supported_commands": [
            { "name": "guest-ping", "enabled": true, "success-response": true },
            { "name": "guest-exec", "enabled": false, "success-response": true },
            { "name": "guest-exec-status", "enabled": false, "success-response": true } ] });
        assert!(info(&reply).starts_with("agent "));
        assert_eq!(
            words(&info(&reply)),
            [vec!["agent", "1"], vec!["commands", "guest-ping"], vec!["disabled", "guest-exec,", "guest-exec-status"]]
        );
    }

    #[test]
    fn many_names_fit_into_a_terminal() {
        let names: Vec<String> = (0..30).map(|number| format!("guest-command-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let text = wrapped(&names);
        assert!(text.lines().count() > 5 && text.lines().all(|line| line.len() <= 66), "{text}");
        assert_eq!(text.split_whitespace().map(|name| name.trim_end_matches(',')).collect::<Vec<_>>(), names);
    }
}
