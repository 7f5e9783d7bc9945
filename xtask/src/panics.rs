//! `cargo xtask panics`: every place in the release binary that can panic stands in `agent-linux/panics.txt`, with the
//! reason why it never does.
//!
//! The binary itself is read, not the source: its code is disassembled, and every reference to a function that does
//! nothing but panic is a site. Line tables then say which function the source of the panic stands in, through all
//! inlining: so the list does not change when code around it moves or the compiler inlines differently.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use addr2line::Loader;
use anyhow::{Context, Result, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use nanoga_tests::paths;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};
use xshell::{Shell, cmd};

/// What every panic ends in: the panic handler, under the name that the compiler gives it.
const HANDLER: &str = "__rustc::rust_begin_unwind";

/// What the functions of the core library that panic begin with, though not all.
const PANICKING: &str = "core::panicking::";

/// Compares the binary with the list.
pub fn check(sh: &Shell) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "this check reads x86-64 code: run it on such a machine");
    let path = build(sh)?;
    let file = fs::read(&path)?;
    let code = Code::read(&file)?;
    let loader = Loader::new(&path).map_err(|e| anyhow::anyhow!("the line tables of {}: {e}", path.display()))?;

    let found = code.panics(&Source { loader: &loader })?;
    let listed = List::read()?;
    println!("{} call sites of {} panics", found.values().map(|sites| sites.len()).sum::<usize>(), found.len());
    for (panic, sites) in &found {
        println!("{:4} × {panic}", sites.len());
    }

    let mut wrong = String::new();
    for (panic, sites) in found.iter().filter(|(panic, _)| !listed.reasons.contains_key(*panic)) {
        wrong += &format!("not in {LIST}: {panic}\n");
        for site in sites {
            wrong += &format!("    {site}\n");
        }
    }
    for panic in listed.reasons.keys().filter(|panic| !found.contains_key(*panic)) {
        wrong += &format!("in {LIST}, but no longer in the binary: {panic}\n");
    }
    ensure!(wrong.is_empty(), "{wrong}");
    println!("each stands in {LIST} with its reason");
    Ok(())
}

/// Builds the release binary with its symbols and line tables. These move a function here and there, no more.
fn build(sh: &Shell) -> Result<PathBuf> {
    cmd!(sh, "cargo build --quiet --profile symbols").env("CARGO_PROFILE_SYMBOLS_DEBUG", "limited").run()?;
    Ok(paths::target_dir().join("symbols/nanoga"))
}

/// The list, from the root of the repository.
const LIST: &str = "agent-linux/panics.txt";

/// What may be in the binary.
struct List {
    reasons: BTreeMap<Panic, String>,
}

impl List {
    fn read() -> Result<List> {
        let text = fs::read_to_string(paths::workspace_dir().join(LIST)).context(LIST)?;
        let mut list = List { reasons: BTreeMap::new() };
        let mut entry: Option<Panic> = None;
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            if let Some((source, callee)) = line.split_once(" -> ") {
                let panic = Panic { source: source.to_owned(), callee: callee.trim().to_owned() };
                ensure!(list.reasons.insert(panic.clone(), String::new()).is_none(), "{LIST} has {panic} twice");
                entry = Some(panic);
            } else if let (true, Some(entry)) = (line.starts_with(' '), &entry) {
                *list.reasons.entry(entry.clone()).or_default() += line.trim();
            } else {
                bail!("{LIST}: neither SOURCE -> CALLEE nor an indented reason: {line}");
            }
        }
        for (panic, reason) in &list.reasons {
            ensure!(!reason.is_empty(), "{LIST} gives no reason for {panic}");
        }
        Ok(list)
    }
}

/// A panic in the source: the innermost function around it that is not the core library's, and what of the core
/// library it calls there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Panic {
    source: String,
    callee: String,
}

impl std::fmt::Display for Panic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", self.source, self.callee)
    }
}

/// The code of the binary.
struct Code<'f> {
    /// By address.
    functions: BTreeMap<u64, Function>,
    data: Vec<(u64, &'f [u8])>,
}

struct Function {
    name: String,
    instructions: Vec<Instruction>,
}

impl<'f> Code<'f> {
    fn read(file: &'f [u8]) -> Result<Code<'f>> {
        let elf = object::File::parse(file)?;
        let text = elf.section_by_name(".text").context("no .text")?;
        let bytes = text.data()?;
        let end = text.address() + text.size();
        let mut symbols = BTreeMap::new();
        for symbol in elf.symbols().filter(|symbol| symbol.section_index() == Some(text.index())) {
            if symbol.kind() == SymbolKind::Text || symbol.kind() == SymbolKind::Label {
                symbols.insert(symbol.address(), demangled(symbol.name()?));
            }
        }
        ensure!(symbols.contains_key(&text.address()), "code before the first symbol");
        let ends: Vec<u64> = symbols.keys().copied().skip(1).chain([end]).collect();
        let mut functions = BTreeMap::new();
        for ((start, name), end) in symbols.into_iter().zip(ends) {
            let range = (start - text.address()) as usize..(end - text.address()) as usize;
            let code = bytes.get(range).with_context(|| format!("{name} lies outside .text"))?;
            let instructions: Vec<_> = Decoder::with_ip(64, code, start, DecoderOptions::NONE).into_iter().collect();
            ensure!(instructions.iter().all(|instruction| !instruction.is_invalid()), "{name} is no code");
            functions.insert(start, Function { name, instructions });
        }
        let mut data = Vec::new();
        for section in elf.sections() {
            let is_data =
                matches!(section.kind(), SectionKind::Data | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString);
            if is_data && section.address() != 0 {
                data.push((section.address(), section.data()?));
            }
        }
        Ok(Code { functions, data })
    }

    /// All panics, each with its places in the code.
    fn panics(&self, source: &Source<'_>) -> Result<BTreeMap<Panic, BTreeSet<String>>> {
        let panicking = self.panicking();
        let mut panics: BTreeMap<Panic, BTreeSet<String>> = BTreeMap::new();
        // Functions of the core library that may panic and were not inlined: their callers are the source.
        let mut carriers = BTreeSet::new();
        loop {
            let before = carriers.len();
            for (start, function) in &self.functions {
                // A panic calls what is called in there. But the handler is ours.
                if panicking.contains(start) && !is_handler(&function.name) {
                    continue;
                }
                for at in 0..function.instructions.len() {
                    for (panic, place) in self.panics_at(function, at, &panicking, &carriers, source)? {
                        match panic {
                            Some(panic) => drop(panics.entry(panic).or_default().insert(place)),
                            None => drop(carriers.insert(*start)),
                        }
                    }
                }
            }
            if carriers.len() == before {
                break;
            }
        }
        for (place, target) in self.tables() {
            if panicking.contains(&target) || carriers.contains(&target) {
                let panic = Panic { source: "a table".to_owned(), callee: self.functions[&target].name.clone() };
                panics.entry(panic).or_default().insert(format!("{place:#x}"));
            }
        }
        Ok(panics)
    }

    /// The panics that an instruction stands for, most often none, and where it is. No panic: one of the core library,
    /// whose source is the function's caller.
    fn panics_at(
        &self,
        function: &Function,
        at: usize,
        panicking: &BTreeSet<u64>,
        carriers: &BTreeSet<u64>,
        source: &Source<'_>,
    ) -> Result<Vec<(Option<Panic>, String)>> {
        let instruction = &function.instructions[at];
        let is_wanted = |target: &u64| panicking.contains(target) || carriers.contains(target);
        let target = self.targets(instruction).into_iter().find(is_wanted);
        let inlined = !is_handler(&function.name)
            && source.chain(instruction.ip())?.0.iter().any(|frame| frame.starts_with(PANICKING) || is_handler(frame));
        if target.is_none() && !inlined {
            return Ok(Vec::new());
        }
        let no_return = |instruction: &Instruction| self.targets(instruction).iter().any(|to| panicking.contains(to));
        let mut found = Vec::new();
        for chain in source.chains(function, at, &no_return)? {
            let place = format!("{:#x} in {}: {}", instruction.ip(), function.name, chain.join(" < "));
            let own = chain.iter().position(|frame| !is_core(frame) && (!is_handler(frame) || !inlined));
            let panic = own.map(|own| {
                let inside = own.checked_sub(1).map(|inside| &chain[inside]);
                let callee = inside.or(target.map(|target| &self.functions[&target].name));
                Panic { source: chain[own].clone(), callee: callee.cloned().unwrap_or_default() }
            });
            found.push((panic, place));
        }
        Ok(found)
    }

    /// Pointers in data, but for those that an instruction loads by their address: where they stand, where they lead.
    fn tables(&self) -> Vec<(u64, u64)> {
        let instructions = self.functions.values().flat_map(|function| &function.instructions);
        let loaded: BTreeSet<u64> = instructions.filter_map(memory_of).collect();
        let words = self.data.iter().flat_map(|(start, bytes)| {
            let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
            (*start..).step_by(8).zip(words)
        });
        words.filter(|(place, _)| !loaded.contains(place)).collect()
    }

    /// The functions that never return but panic: the handler, core::panicking, and what of the core library ends in
    /// them on all ways (`slice_index_fail`, `unwrap_failed`, …).
    fn panicking(&self) -> BTreeSet<u64> {
        let by_name = self.functions.iter().filter(|(_, f)| f.name.starts_with(PANICKING) || is_handler(&f.name));
        let mut panicking: BTreeSet<u64> = by_name.map(|(start, _)| *start).collect();
        loop {
            let more = self.functions.iter().filter(|(start, function)| {
                !panicking.contains(start) && is_core(&function.name) && self.only_panics(function, &panicking)
            });
            let more: Vec<u64> = more.map(|(start, _)| *start).collect();
            if more.is_empty() {
                return panicking;
            }
            panicking.extend(more);
        }
    }

    fn only_panics(&self, function: &Function, panicking: &BTreeSet<u64>) -> bool {
        let mut panics = false;
        for instruction in &function.instructions {
            let targets = self.targets(instruction);
            match instruction.flow_control() {
                FlowControl::Return => return false,
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::IndirectBranch => {
                    let leaves = targets.iter().any(|to| self.functions.contains_key(to) && !panicking.contains(to));
                    if leaves {
                        return false;
                    }
                }
                _ => {}
            }
            panics |= targets.iter().any(|target| panicking.contains(target));
        }
        panics
    }

    /// What an instruction may refer to: where it jumps to, an address it makes, a pointer it loads or calls through.
    fn targets(&self, instruction: &Instruction) -> Vec<u64> {
        let mut targets = Vec::new();
        for operand in 0..instruction.op_count() {
            match instruction.op_kind(operand) {
                OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                    targets.push(instruction.near_branch_target());
                }
                OpKind::Memory => {
                    let address = memory_of(instruction);
                    targets.extend(address);
                    targets.extend(address.and_then(|address| self.word(address)));
                }
                OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64 => {
                    targets.push(instruction.immediate(operand));
                }
                _ => {}
            }
        }
        targets
    }

    fn word(&self, address: u64) -> Option<u64> {
        let (start, bytes) =
            self.data.iter().find(|(start, bytes)| (*start..*start + bytes.len() as u64).contains(&address))?;
        let word = bytes.get((address - start) as usize..)?.first_chunk()?;
        Some(u64::from_le_bytes(*word))
    }
}

/// The address of a memory operand, where it stands in the instruction.
fn memory_of(instruction: &Instruction) -> Option<u64> {
    let has_memory = (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory);
    let fixed = instruction.is_ip_rel_memory_operand() || instruction.memory_base() == iced_x86::Register::None;
    (has_memory && fixed).then(|| instruction.memory_displacement64())
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

fn is_handler(name: &str) -> bool {
    name == HANDLER
}

/// Is this a function of the core library? `<Type as Trait>::function` is, where both are.
fn is_core(name: &str) -> bool {
    let core = |path: &str| path.trim_start_matches(['<', '&', '*', '[', '(']).starts_with("core::");
    match name.strip_prefix('<').and_then(|name| name.split_once(" as ")) {
        Some((of, what)) => core(what) && (core(of) || !of.contains("::")),
        None => core(name),
    }
}

/// What the line tables say.
struct Source<'l> {
    loader: &'l Loader,
}

impl Source<'_> {
    /// The functions that an instruction stands in, the innermost inlined one first.
    ///
    /// Where the compiler made one of several equal pieces of code, it stands for no line: then the ways that lead to
    /// it say what it stands for.
    fn chains(
        &self,
        function: &Function,
        at: usize,
        no_return: &dyn Fn(&Instruction) -> bool,
    ) -> Result<BTreeSet<Vec<String>>> {
        let mut chains = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            if !seen.insert(at) {
                continue;
            }
            let (chain, exact) = self.chain(function.instructions[at].ip())?;
            let before = if exact { Vec::new() } else { before(function, at, no_return) };
            if before.is_empty() {
                let chain = if chain.is_empty() { vec![function.name.clone()] } else { chain };
                chains.insert(chain);
            }
            open.extend(before);
        }
        Ok(chains)
    }

    /// The chain at an address, and whether its line is known.
    fn chain(&self, address: u64) -> Result<(Vec<String>, bool)> {
        let trouble = |e| anyhow::anyhow!("the line tables at {address:#x}: {e}");
        let mut frames = self.loader.find_frames(address).map_err(trouble)?;
        let mut chain = Vec::new();
        let mut exact = true;
        while let Some(frame) = frames.next().map_err(|e| anyhow::anyhow!("{address:#x}: {e}"))? {
            if chain.is_empty() {
                exact = frame.location.is_some_and(|location| location.line.is_some_and(|line| line > 0));
            }
            if let Some(name) = frame.function {
                chain.push(demangled(&name.raw_name()?));
            }
        }
        Ok((chain, exact))
    }
}

/// The instructions that may have been executed just before: the one above, unless nothing comes out of it below, and
/// all that jump here.
fn before(function: &Function, at: usize, no_return: &dyn Fn(&Instruction) -> bool) -> Vec<usize> {
    let here = function.instructions[at].ip();
    let mut before = Vec::new();
    if let Some(above) = at.checked_sub(1) {
        use FlowControl::{Exception, IndirectBranch, Return, UnconditionalBranch};
        let above_it = &function.instructions[above];
        let flow = above_it.flow_control();
        if !matches!(flow, Return | UnconditionalBranch | IndirectBranch | Exception) && !no_return(above_it) {
            before.push(above);
        }
    }
    for (index, instruction) in function.instructions.iter().enumerate() {
        let jumps =
            matches!(instruction.flow_control(), FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch);
        if jumps && instruction.near_branch_target() == here {
            before.push(index);
        }
    }
    before
}
