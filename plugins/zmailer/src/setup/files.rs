//! What a ZMailer's files say of filters, and the texts with ours in them, as pure functions.
//!
//! smtpserver.conf as its cfgread.c reads it: entries begin in the first column, keywords have no case, the last one
//! counts. process.cf is a program in the router's own shell, of which only the two cases that ship are understood.

use checkpost_setup::text::{self, EditError, Place};

use super::{MARKS, PROCESS};

/// The value that counts of a `PARAM`, without its quote.
pub(super) fn param<'a>(conf: &'a str, keyword: &str) -> Option<&'a str> {
    let mut values = conf.lines().filter_map(|line| {
        let (name, value) = entry(line)?;
        let value = value.split_ascii_whitespace().next()?;
        name.eq_ignore_ascii_case(keyword).then(|| value.trim_start_matches(['"', '\'']))
    });
    values.next_back()
}

/// smtpserver.conf with these lines first, in place of others with their keywords.
pub(super) fn with_params(conf: &str, lines: &str) -> String {
    let keywords: Vec<&str> = lines.lines().filter_map(entry).map(|(name, _)| name).collect();
    let ours = |line: &str| entry(line).is_some_and(|(name, _)| keywords.iter().any(|k| k.eq_ignore_ascii_case(name)));
    let rest: String = conf.split_inclusive('\n').filter(|line| !ours(line)).collect();
    format!("{lines}{rest}")
}

/// Are these lines what counts?
pub(super) fn has_params(conf: &str, lines: &str) -> bool {
    lines.lines().filter_map(entry).all(|(name, value)| param(conf, name) == Some(value))
}

/// A keyword and what follows it.
fn entry(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix("PARAM")?;
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_whitespace()).trim_ascii_start();
    let (name, value) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    Some((name, value.trim_ascii()))
}

/// Why process.cf is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProcessError {
    /// The marks.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Our program, without the marks.
    #[error("checkpost-zmailer was entered by hand")]
    ByHand,
    /// Other cases than those that ship.
    #[error("its cases for files are not the two that ship")]
    Cases,
}

/// process.cf with the question before its cases.
pub(super) fn with_question(cf: &str) -> Result<String, ProcessError> {
    let block = text::block(cf, MARKS)?.unwrap_or_default();
    let rest = cf.replacen(&block, "", 1);
    let code: Vec<&str> = rest.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
    if code.iter().any(|line| line.contains("checkpost-zmailer")) {
        return Err(ProcessError::ByHand);
    }
    let routes = code.iter().filter(|line| is_route(line)).count();
    let others = code.iter().filter(|line| line.contains("rfc822 \"") && !is_route(line)).count();
    let cases = code.iter().filter(|line| is_case(line)).count();
    if (routes, others, cases) != (2, 0, 1) {
        return Err(ProcessError::Cases);
    }
    let place = Place { name: "case for files", is: &is_case, behind: false };
    Ok(text::with_block(cf, MARKS, PROCESS, Some(place))?)
}

/// Programs of others that process.cf starts: what it names by a path.
pub(super) fn programs(cf: &str) -> Vec<String> {
    let block = text::block(cf, MARKS).ok().flatten().unwrap_or_default();
    let rest = cf.replacen(&block, "", 1);
    let code = rest.lines().filter(|line| !line.trim_start().starts_with('#'));
    let words = code.flat_map(|line| line.split([' ', '\t', '"', '(', ')', '`', ';']));
    let ships = |word: &&str| ["/bin/mv", "/bin/cat", "/dev/null"].contains(word);
    let mut names: Vec<String> =
        words.filter(|word| word.starts_with('/') && word.len() > 1 && !ships(word)).map(str::to_owned).collect();
    names.dedup();
    names
}

fn is_case(line: &str) -> bool {
    line == "\tcase \"$file\" in"
}

/// As `[0-9]*)` and `[A-Z]/[0-9]*)` ship.
fn is_route(line: &str) -> bool {
    let Some(rest) = line.strip_prefix('\t') else { return false };
    let rest = rest.strip_prefix("[A-Z]/").unwrap_or(rest);
    rest.strip_prefix("[0-9]*)").is_some_and(|rest| rest.trim_start_matches([' ', '\t']) == "rfc822 \"$file\" ;;")
}

#[cfg(test)]
mod tests {
    use super::super::{PROGRAM, SOCKET};
    use super::*;

    #[test]
    fn the_last_entry_counts_and_ours_is_put_in_once() {
        let conf = "#PARAM contentfilter /off\n PARAM contentfilter /blank/first\nPARAM maxsize 1\nPARAM\tContentFilter\t\"/a/b  # why\n* * ftveR\n";
        assert_eq!(param(conf, "contentfilter"), Some("/a/b"));
        assert_eq!((param(conf, "maxsize"), param(conf, "contentfilter-maxpar")), (Some("1"), None));
        let with = with_params(conf, PROGRAM);
        assert_eq!(
            with,
            format!(
                "{PROGRAM}#PARAM contentfilter /off\n PARAM contentfilter /blank/first\nPARAM maxsize 1\n* * ftveR\n"
            )
        );
        assert!(has_params(&with, PROGRAM) && !has_params(conf, PROGRAM) && !has_params(&with, SOCKET));
        assert!(!has_params(&format!("{with}PARAM contentfilter /other\n"), PROGRAM), "behind it another counts");
        assert_eq!(with_params(&with, PROGRAM), with);
    }

    const STOCK: &str = "process (file) {\n\tdb flush pwuid\n\n\tcase \"$file\" in\n#\t[0-9]*.x400)\tx400 \"$file\" ;;\n#\t\trfc822 \"$file\" ;;\n\
                         \t[A-Z]/[0-9]*)\trfc822 \"$file\" ;;\n\t[0-9]*)\t\trfc822 \"$file\" ;;\n\tcore*)\t\t/bin/mv \"$file\" ../x\n\t\treturn\n\t\t;;\n\tesac\n}\n";

    #[test]
    fn the_router_asks_before_its_cases() {
        let once = with_question(STOCK).unwrap();
        let ours = format!("{}\n{PROCESS}{}\n", MARKS.begin, MARKS.end);
        assert_eq!(once, STOCK.replacen("\tcase \"$file\" in\n", &format!("{ours}\tcase \"$file\" in\n"), 1));
        assert_eq!(with_question(&once).unwrap(), once);
        assert_eq!(programs(&once), Vec::<String>::new());
    }

    #[test]
    fn other_cases_are_not_understood() {
        let two = "\t[0-9]*)\t\trfc822 \"$file\" ;;\n";
        for (other, why) in [
            (STOCK.replace(two, ""), ProcessError::Cases),
            (STOCK.replace(two, &two.repeat(2)), ProcessError::Cases),
            (STOCK.replace(two, "\t[0-9]*)\tmine \"$file\"; rfc822 \"$file\" ;;\n"), ProcessError::Cases),
            (STOCK.replace(two, &format!("{two}\t*.x)\trfc822 \"$file\" ;;\n")), ProcessError::Cases),
            (STOCK.replace("\tcase ", "    case "), ProcessError::Cases),
            (STOCK.replace("\tdb flush pwuid", "\tcheckpost-zmailer router x"), ProcessError::ByHand),
        ] {
            assert_eq!(with_question(&other), Err(why), "{other}");
        }
        assert!(with_question(&format!("{}\n{STOCK}", MARKS.begin)).is_err());
        let amavis = STOCK.replace("\tdb flush", "\t/usr/sbin/amavis \"$file\" > /dev/null\n\tdb flush");
        assert_eq!(programs(&amavis), ["/usr/sbin/amavis"]);
    }
}
