//! Models that llama.cpp's gguf-split made several files of: known by the first, whose name gives those of the others.

use std::path::{Path, PathBuf};

use super::{GgufError, GgufFile, U16};

impl GgufFile {
    /// Read the header of the file at `path`, and those of the other shards if it is the first of a split model. It may
    /// still be unfit to load: see [`GgufFile::check`].
    pub fn open(path: &Path) -> Result<GgufFile, GgufError> {
        let mut file = GgufFile::open_one(path)?;
        let count = file.u64(SPLIT_COUNT).unwrap_or(1);
        if count <= 1 {
            return Ok(file);
        }
        let names = shard_names(path).filter(|names| names.len() as u64 == count);
        match (file.u64(SPLIT_NO).unwrap_or(0), names) {
            (0, Some(names)) if names[0] == path => {
                let others = names.iter().enumerate().skip(1);
                file.others = others.map(|(no, name)| file.open_shard(no, name)).collect::<Result<_, _>>()?;
                Ok(file)
            }
            (0, _) => Err(GgufError::RenamedShard { path: path.into(), count }),
            (no, names) => {
                let first =
                    names.map_or("the first one".to_owned(), |names| format!("the first, `{}`", names[0].display()));
                Err(GgufError::LaterShard { path: path.into(), no: no.saturating_add(1), count, first })
            }
        }
    }

    fn open_shard(&self, no: usize, name: &Path) -> Result<GgufFile, GgufError> {
        let (path, first) = (name.to_owned(), self.path.clone());
        let shard = GgufFile::open_one(name).map_err(|error| match error {
            GgufError::Missing { path } => GgufError::MissingShard { path, first: first.clone() },
            other => other,
        })?;
        // llama.cpp aborts where the number is of another type.
        match shard.u64(SPLIT_NO) == Some(no as u64) && shard.header.is(&shard.bytes, SPLIT_NO, U16) {
            true => Ok(shard),
            false => Err(GgufError::ForeignShard { path, no: no + 1, first }),
        }
    }
}

/// What llama.cpp's gguf-split writes into every shard.
const SPLIT_COUNT: &str = "split.count";
const SPLIT_NO: &str = "split.no";

/// The files that a split model has, going by the name of one: `model-00001-of-00003.gguf`.
pub(crate) fn shard_names(path: &Path) -> Option<Vec<PathBuf>> {
    let (rest, count) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, no) = rest.rsplit_once('-')?;
    let number = |digits: &str| digits.parse::<u16>().ok().filter(|n| format!("{n:05}") == digits);
    let (no, count) = (number(no)?, number(count)?);
    let name = |i: u16| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"));
    (1..=count).contains(&no).then(|| (1..=count).map(name).collect())
}
