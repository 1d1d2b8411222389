//! Looks up offsets of members and numbers of enumerators in the kernel's BTF.
//!
//! It does no I/O, and parses only the types on the way to the answer.

use thiserror::Error;

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum BtfError {
    #[error("the kernel's type information ends too early")]
    Short,
    #[error("the kernel's type information is not BTF")]
    NotBtf,
    #[error("the kernel's type information has a type of kind {0}, which this version does not know")]
    Kind(u32),
    #[error("the kernel's type information does not describe {0}")]
    Missing(&'static str),
    #[error("this kernel gives no reasons of drops; Linux 5.18 and later do")]
    NoDropReasons,
}

const MAGIC: u16 = 0xeb9f;

const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const ENUM64: u32 = 19;
/// Typedefs and qualifiers, which stand for another type.
const ALIASES: std::ops::RangeInclusive<u32> = 8..=11;

/// Anonymous structures within each other that are looked into.
const MAX_DEPTH: u32 = 8;

/// All types, by their numbers.
#[derive(Debug)]
pub(crate) struct Types<'d> {
    data: &'d [u8],
    strings: &'d [u8],
    /// Where each type begins; number 0 is `void`.
    offsets: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Type<'d> {
    name: u32,
    kind: u32,
    /// Its size, or the type that it stands for.
    size_or_type: u32,
    /// Whether the offsets of members have the widths of bit fields above them.
    bit_fields: bool,
    body: &'d [u8],
}

struct Member {
    /// Where it begins in the structure.
    bit: u32,
    type_id: u32,
}

impl<'d> Types<'d> {
    pub(crate) fn parse(file: &'d [u8]) -> Result<Self, BtfError> {
        let magic = file.first_chunk().ok_or(BtfError::Short)?;
        if u16::from_ne_bytes(*magic) != MAGIC {
            return Err(BtfError::NotBtf);
        }
        let header_len = word(file, 4)? as usize;
        let section = |at: usize| -> Result<&'d [u8], BtfError> {
            let begin = header_len.checked_add(word(file, at)? as usize).ok_or(BtfError::Short)?;
            let end = begin.checked_add(word(file, at + 4)? as usize).ok_or(BtfError::Short)?;
            file.get(begin..end).ok_or(BtfError::Short)
        };
        let mut types = Self { data: section(8)?, strings: section(16)?, offsets: vec![0] };
        let mut at = 0;
        while at < types.data.len() {
            types.offsets.push(at);
            at += HEAD + types.at(at)?.body.len();
        }
        Ok(types)
    }

    /// Where a member of a structure begins, in bits; also one of an anonymous structure or union in it.
    pub(crate) fn bit_of(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let id = self.find(&[STRUCT], structure).ok_or(BtfError::Missing(structure))?;
        Ok(self.member_of(id, member, 0).ok_or(BtfError::Missing(member))?.bit)
    }

    /// Where members of a structure begin, in bytes.
    pub(crate) fn bytes_of<const N: usize>(
        &self,
        structure: &'static str,
        members: [&'static str; N],
    ) -> Result<[u32; N], BtfError> {
        let id = self.find(&[STRUCT], structure).ok_or(BtfError::Missing(structure))?;
        let mut bytes = [0; N];
        for (byte, member) in bytes.iter_mut().zip(members) {
            *byte = self.member_of(id, member, 0).ok_or(BtfError::Missing(member))?.bit / 8;
        }
        Ok(bytes)
    }

    pub(crate) fn size_of(&self, structure: &'static str) -> Result<u32, BtfError> {
        let id = self.find(&[STRUCT], structure).and_then(|id| self.by_id(id));
        Ok(id.ok_or(BtfError::Missing(structure))?.size_or_type)
    }

    /// The name of the type of a member, or of the elements of an array.
    pub(crate) fn type_of(&self, structure: &'static str, member: &'static str) -> Result<&'d str, BtfError> {
        let id = self.find(&[STRUCT], structure).ok_or(BtfError::Missing(structure))?;
        let mut id = self.member_of(id, member, 0).ok_or(BtfError::Missing(member))?.type_id;
        for _ in 0..MAX_DEPTH {
            let found = self.by_id(id).ok_or(BtfError::Missing(member))?;
            id = match found.kind {
                ARRAY => word(found.body, 0)?,
                kind if ALIASES.contains(&kind) => found.size_or_type,
                _ => return self.string(found.name).ok_or(BtfError::Short),
            };
        }
        Err(BtfError::Missing(member))
    }

    /// The value of an enumerator of any enumeration.
    pub(crate) fn value_of(&self, enumerator: &'static str) -> Result<u32, BtfError> {
        let of = |found: Type<'d>| {
            let is_it = |each: &&[u8]| word(each, 0).is_ok_and(|at| self.string(at) == Some(enumerator));
            found.body.chunks_exact(8).find(is_it).and_then(|each| word(each, 4).ok())
        };
        let enumerations = (1..self.offsets.len() as u32).filter_map(|id| self.by_id(id));
        let mut enumerations = enumerations.filter(|found| found.kind == ENUM);
        enumerations.find_map(of).ok_or(BtfError::Missing(enumerator))
    }

    /// The enumerators of an enumeration with their values.
    pub(crate) fn enumerators(
        &self,
        enumeration: &'static str,
    ) -> Result<impl Iterator<Item = (&'d str, u32)>, BtfError> {
        let id = self.find(&[ENUM, ENUM64], enumeration).ok_or(BtfError::Missing(enumeration))?;
        let kind = self.by_id(id).ok_or(BtfError::Short)?;
        let each = kind.body.chunks_exact(if kind.kind == ENUM { 8 } else { 12 });
        Ok(each.filter_map(|each| Some((self.string(word(each, 0).ok()?)?, word(each, 4).ok()?))))
    }

    fn find(&self, kinds: &[u32], name: &str) -> Option<u32> {
        let is = |id: &u32| {
            self.by_id(*id)
                .is_some_and(|found| kinds.contains(&found.kind) && self.string(found.name) == Some(name))
        };
        (1..self.offsets.len() as u32).find(is)
    }

    fn member_of(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        let structure = self.by_id(id).filter(|of| matches!(of.kind, STRUCT | UNION) && depth < MAX_DEPTH)?;
        structure.body.chunks_exact(MEMBER).find_map(|member| {
            let [member_name, type_id, offset] = [0, 4, 8].map(|at| word(member, at).unwrap_or(0));
            let bit = if structure.bit_fields { offset & 0x00ff_ffff } else { offset };
            match self.string(member_name)? {
                "" => {
                    let inner = self.member_of(type_id, name, depth + 1)?;
                    Some(Member { bit: bit.checked_add(inner.bit)?, ..inner })
                }
                found => (found == name).then_some(Member { bit, type_id }),
            }
        })
    }

    fn by_id(&self, id: u32) -> Option<Type<'d>> {
        self.at(*self.offsets.get(id as usize).filter(|_| id != 0)?).ok()
    }

    fn at(&self, at: usize) -> Result<Type<'d>, BtfError> {
        let rest = self.data.get(at..).ok_or(BtfError::Short)?;
        let [name, info, size_or_type] = [word(rest, 0)?, word(rest, 4)?, word(rest, 8)?];
        let (kind, len) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let body_len = match kind {
            1 | 14 | 17 => 4,
            2 | 7..=12 | 16 | 18 => 0,
            ARRAY => 12,
            STRUCT | UNION | 15 => MEMBER * len,
            ENUM | 13 => 8 * len,
            ENUM64 => 12 * len,
            _ => return Err(BtfError::Kind(kind)),
        };
        let body = rest.get(HEAD..HEAD + body_len).ok_or(BtfError::Short)?;
        Ok(Type { name, kind, size_or_type, bit_fields: info >> 31 == 1, body })
    }

    fn string(&self, at: u32) -> Option<&'d str> {
        let rest = self.strings.get(at as usize..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }
}

/// Of each type: its name, kind, and size or type.
const HEAD: usize = 12;
const MEMBER: usize = 12;

fn word(data: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = data.get(at..).and_then(<[u8]>::first_chunk).ok_or(BtfError::Short)?;
    Ok(u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type information with these types, each given as its words, and these strings.
    fn file(types: &[&[u32]], strings: &str) -> Vec<u8> {
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let types: Vec<u8> = types.iter().flat_map(|words| bytes(words)).collect();
        let mut file = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        file.extend(bytes(&[24, 0, types.len() as u32, types.len() as u32, strings.len() as u32]));
        file.extend(types);
        file.extend(strings.as_bytes());
        file
    }

    const BIT_FIELDS: u32 = 1 << 31;

    /// `struct a { int b; union { struct { int c; int d : 1; }; }; }`, and two enumerations.
    fn example() -> Vec<u8> {
        let types: &[&[u32]] = &[
            &[5, 1 << 24, 4, 0],
            &[1, STRUCT << 24 | 2, 12, 3, 1, 0, 0, 3, 32],
            &[0, UNION << 24 | 1, 8, 0, 4, 0],
            &[0, BIT_FIELDS | STRUCT << 24 | 2, 8, 9, 1, 0, 11, 1, 1 << 24 | 33],
            &[13, ENUM << 24 | 2, 4, 9, 7, 11, 8],
            &[15, ENUM64 << 24 | 1, 8, 9, 9, 0],
        ];
        file(types, "\0a\0b\0int\0c\0d\0e\0f\0")
    }

    #[test]
    fn members_are_found_through_what_has_no_name() {
        let file = example();
        let types = Types::parse(&file).unwrap();
        assert_eq!(types.bit_of("a", "b"), Ok(0));
        assert_eq!(types.bit_of("a", "c"), Ok(32));
        assert_eq!(types.bit_of("a", "d"), Ok(65), "a bit field, without its width");
        assert_eq!(types.bit_of("a", "x"), Err(BtfError::Missing("x")));
        assert_eq!(types.bytes_of("a", ["c", "b"]), Ok([4, 0]));
        assert_eq!((types.size_of("a"), types.type_of("a", "c")), (Ok(12), Ok("int")));
        assert_eq!(types.bit_of("e", "c"), Err(BtfError::Missing("e")), "an enumeration is no structure");
    }

    #[test]
    fn enumerators_of_both_widths_are_found() {
        let file = example();
        let types = Types::parse(&file).unwrap();
        let of = |name| types.enumerators(name).unwrap().collect::<Vec<_>>();
        assert_eq!(of("e"), [("c", 7), ("d", 8)]);
        assert_eq!(of("f"), [("c", 9)]);
        assert_eq!((types.value_of("d"), types.value_of("x")), (Ok(8), Err(BtfError::Missing("x"))));
    }

    #[test]
    fn other_or_cut_bytes_are_refused() {
        let file = example();
        for len in 0..file.len() {
            assert!(Types::parse(&file[..len]).is_err(), "{len} of {} bytes", file.len());
        }
        assert_eq!(Types::parse(&[0; 64]).unwrap_err(), BtfError::NotBtf);
        let unknown = self::file(&[&[0, 31 << 24, 0]], "\0");
        assert_eq!(Types::parse(&unknown).unwrap_err(), BtfError::Kind(31));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0_usize..300, byte: u8) {
            let mut file = example();
            let at = at % file.len();
            file[at] = byte;
            if let Ok(types) = Types::parse(&file) {
                let _ = types.bit_of("a", "d");
                let _ = types.enumerators("e").map(Iterator::count);
            }
        }
    }
}
