//! Lists and tables of documents that strangers wrote: no longer than what is sensible, so that a small document cannot
//! become a large amount of memory. `null` stands for an empty one, as Go writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Layers of an image, images of an index.
pub(crate) const MAX_PARTS: usize = 4096;

/// Everything else: variables, labels, steps of a history.
const MAX_ENTRIES: usize = 1 << 16;

/// A list of at most [`MAX_PARTS`].
pub(crate) fn parts<'de, D, T>(input: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list(input, MAX_PARTS).map(Option::unwrap_or_default)
}

/// A list of at most [`MAX_ENTRIES`].
pub(crate) fn entries<'de, D, T>(input: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    list(input, MAX_ENTRIES).map(Option::unwrap_or_default)
}

/// Words, or a single one without a list around it as old versions of Docker wrote them.
pub(crate) fn words<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<String>>, D::Error> {
    Ok(Option::<Words>::deserialize(input)?.map(|words| words.0))
}

/// A table of at most [`MAX_ENTRIES`]; a value that is `null` is an empty one.
pub(crate) fn table<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    optional_table(input).map(Option::unwrap_or_default)
}

/// [`table`], or nothing.
pub(crate) fn optional_table<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    Ok(Option::<Table>::deserialize(input)?.map(|table| table.0))
}

fn list<'de, D, T>(input: D, limit: usize) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    input.deserialize_option(Optional(Items::new(limit)))
}

/// What may be `null`.
struct Optional<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Optional<V> {
    type Value = Option<V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self.0).map(Some)
    }
}

struct Items<T> {
    limit: usize,
    kind: PhantomData<T>,
}

impl<T> Items<T> {
    fn new(limit: usize) -> Self {
        let kind = PhantomData;
        Self { limit, kind }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {}", self.limit)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = input.next_element()? {
            if items.len() == self.limit {
                let limit = self.limit;
                return Err(A::Error::custom(format!(
                    "a list has more than {limit} entries"
                )));
            }
            items.push(item);
        }
        Ok(items)
    }
}

struct Words(Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(WordsVisitor).map(Self)
    }
}

struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of words")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Vec<String>, E> {
        Ok(vec![word.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, input: A) -> Result<Vec<String>, A::Error> {
        Items::new(MAX_ENTRIES).visit_seq(input)
    }
}

struct Table(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_map(TableVisitor).map(Self)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a table of at most {MAX_ENTRIES} texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Self::Value, A::Error> {
        let mut table = BTreeMap::new();
        while let Some((name, value)) = input.next_entry::<String, Option<String>>()? {
            table.insert(name, value.unwrap_or_default());
            if table.len() > MAX_ENTRIES {
                return Err(A::Error::custom(format!(
                    "a table has more than {MAX_ENTRIES} entries"
                )));
            }
        }
        Ok(table)
    }
}
