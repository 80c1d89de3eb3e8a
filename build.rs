//! Turns the protocol's definitions into Rust, with a compiler that is a crate: no `protoc`. And
//! into tables of what each message has, by which JSON is read and written.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Where the definitions are.
const PROTOS: &str = "src/wire/etcd/v3";

/// What the log carries, and what is in it: `Eq` is left out of what has a list of messages.
const COMPARED: [&str; 6] = [
    "RangeResponse",
    "DeleteRangeResponse",
    "RequestOp",
    "ResponseOp",
    "TxnRequest",
    "TxnResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let definitions = protox::compile(["rpc.proto", "election.proto", "lock.proto"], [PROTOS])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("schema.rs"), schema(&definitions)?)?;
    let mut builder = tonic_prost_build::configure().build_transport(false);
    for name in COMPARED {
        builder = builder.type_attribute(format!(".etcdserverpb.{name}"), "#[derive(Eq)]");
    }
    builder.compile_fds(definitions)?;
    Ok(())
}

/// Writes the tables, each in the order of its names.
fn schema(definitions: &FileDescriptorSet) -> Result<String, Box<dyn Error>> {
    let mut messages = BTreeMap::new();
    let mut enums = BTreeMap::new();
    let mut methods = BTreeMap::new();
    for file in &definitions.file {
        let package = file.package();
        for message in &file.message_type {
            add_message(&mut messages, &mut enums, &format!(".{package}"), message)?;
        }
        for one in &file.enum_type {
            add_enum(&mut enums, &format!(".{package}"), one);
        }
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{package}.{}/{}", service.name(), method.name());
                let (input, output) = (method.input_type(), method.output_type());
                let (asks, answers) = (method.client_streaming(), method.server_streaming());
                let entry = format!(
                    "Method {{ path: {path:?}, input: {input:?}, output: {output:?}, many_requests: {asks}, many_answers: {answers} }}"
                );
                methods.insert(path, entry);
            }
        }
    }
    let mut out = String::new();
    for (name, kind, table) in [
        ("MESSAGES", "Message", messages),
        ("ENUMS", "Enum", enums),
        ("METHODS", "Method", methods),
    ] {
        writeln!(out, "const {name}: &[{kind}] = &[")?;
        for entry in table.into_values() {
            writeln!(out, "    {entry},")?;
        }
        writeln!(out, "];")?;
    }
    Ok(out)
}

fn add_message(
    messages: &mut BTreeMap<String, String>,
    enums: &mut BTreeMap<String, String>,
    within: &str,
    message: &DescriptorProto,
) -> Result<(), Box<dyn Error>> {
    let name = format!("{within}.{}", message.name());
    let mut fields = String::new();
    for field in &message.field {
        write!(fields, "{}, ", entry_of(field)?)?;
    }
    for one in &message.nested_type {
        add_message(messages, enums, &name, one)?;
    }
    for one in &message.enum_type {
        add_enum(enums, &name, one);
    }
    messages.insert(name.clone(), format!("Message {{ name: {name:?}, fields: &[{fields}] }}"));
    Ok(())
}

fn entry_of(field: &FieldDescriptorProto) -> Result<String, Box<dyn Error>> {
    let name = field.name();
    let kind = match field.r#type() {
        Type::Bytes => "Bytes".to_owned(),
        Type::String => "Text".to_owned(),
        Type::Bool => "Flag".to_owned(),
        Type::Int64 => "Int64".to_owned(),
        Type::Uint64 => "Uint64".to_owned(),
        Type::Uint32 => "Uint32".to_owned(),
        Type::Enum => format!("Enum({:?})", field.type_name()),
        Type::Message => format!("Message({:?})", field.type_name()),
        other @ (Type::Double
        | Type::Float
        | Type::Int32
        | Type::Fixed64
        | Type::Fixed32
        | Type::Group
        | Type::Sfixed32
        | Type::Sfixed64
        | Type::Sint32
        | Type::Sint64) => {
            return Err(format!("`{name}` is of a kind without JSON: {other:?}").into());
        }
    };
    let (number, many) = (field.number(), field.label() == Label::Repeated);
    let camel = camel(name);
    Ok(format!(
        "Field {{ number: {number}, name: {name:?}, camel: {camel:?}, kind: Kind::{kind}, many: {many} }}"
    ))
}

fn add_enum(enums: &mut BTreeMap<String, String>, within: &str, one: &EnumDescriptorProto) {
    let name = format!("{within}.{}", one.name());
    let values: Vec<_> = one.value.iter().map(|value| (value.number(), value.name())).collect();
    enums.insert(name.clone(), format!("Enum {{ name: {name:?}, values: &{values:?} }}"));
}

/// Turns `create_revision` into `createRevision`.
fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut camel = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}
