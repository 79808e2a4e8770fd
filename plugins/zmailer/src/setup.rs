//! What must be done to a ZMailer, as data: shown by `configure_mta`, used by the tests against a real ZMailer, and
//! explained in the README. Nothing is written from here. Every step may be repeated.
//!
//! Sources: smtpserver(8), zmailer(8), smtpserver.conf and process.cf as ZMailer 3.0.1 ships them.

mod files;
mod home;
mod mta;
mod server;

use checkpost_adapter::setup::{self, Entry, Plan, Recipe};
use checkpost_setup::text::Marks;

pub use mta::ZMailer;

/// One change. The commands are for a shell that ends at the first failure (`sh -e`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The filter's server runs, and its socket is there with the right bits, before smtpserver starts.
    Server,
    /// smtpserver asks at the socket.
    Socket,
    /// smtpserver starts the program, and enough copies of it.
    Program,
    /// smtpserver reads its configuration, which it does at its start only.
    Restart,
    /// Mail of relay clients is filtered, too.
    Policy,
    /// The router asks about each file.
    Process,
    /// The router reads its functions.
    RestartRouter,
}

/// All recipes, to be shown.
pub fn plans() -> Vec<Plan> {
    RECIPES.iter().map(Recipe::plan).collect()
}

impl setup::Step for Step {
    fn entry(&self) -> Entry {
        let (file, run, why, undo) = match self {
            Self::Server => (LISTEN, format!("{SERVER} && {SHOWS}"), WHY_SERVER, Some(STOP_SERVER)),
            Self::Socket => (SMTPSERVER, named(SOCKET, ""), WHY_SOCKET, Some(REMOVE)),
            Self::Program => {
                (SMTPSERVER, named(PROGRAM, "test -x /usr/bin/checkpost-zmailer && "), WHY_PROGRAM, Some(REMOVE))
            }
            Self::Restart => (SMTPSERVER, RESTART.into(), WHY_RESTART, None),
            Self::Policy => {
                return Entry {
                    file: Some("/opt/zmailer/var/db/smtp-policy.src"),
                    lines: Some(("at the end of the entries _default_ipaddr and _full_rights, both", "filtering +")),
                    why: Some(WHY_POLICY),
                    ..Entry::default()
                };
            }
            Self::Process => (PROCESS_CF, asked(), WHY_PROCESS, Some(REMOVE_PROCESS)),
            Self::RestartRouter => (PROCESS_CF, RESTART_ROUTER.into(), WHY_ROUTER, None),
        };
        Entry { file: Some(file), run: Some(run), why: Some(why), undo: undo.map(Into::into), ..Entry::default() }
    }
}

const LISTEN: &str = "/run/checkpost-zmailer/filter.sock";
const SMTPSERVER: &str = "/opt/zmailer/share/smtpserver.conf";
const PROCESS_CF: &str = "/opt/zmailer/share/cf/process.cf";

const SERVER: &str = "systemctl enable --now checkpost-zmailer.socket checkpost-zmailer.service";
/// smtpserver believes in a socket by its execute bit.
const SHOWS: &str = "test -S /run/checkpost-zmailer/filter.sock && test -x /run/checkpost-zmailer/filter.sock";
const WHY_SERVER: &str = "smtpserver looks for the socket once, at its start: one that is missing, or without its execute \
                          bit, is ignored without a word, and all mail passes";
const STOP_SERVER: &str = "systemctl disable --now checkpost-zmailer.socket checkpost-zmailer.service";

/// The first lines of smtpserver.conf: the filter by its socket.
const SOCKET: &str = "PARAM contentfilter /run/checkpost-zmailer/filter.sock\n";
const WHY_SOCKET: &str =
    "the socket is the better way: nobody waits for a free copy, a fault costs one session, and no root";

/// The same, as a program.
const PROGRAM: &str = "PARAM contentfilter /usr/bin/checkpost-zmailer\nPARAM contentfilter-maxpar 20\n";
const WHY_PROGRAM: &str = "20 copies is the most, 1 the default: what waits 120 s for a free one passes unchecked";

const REMOVE: &str = "f=/opt/zmailer/share/smtpserver.conf; if [ -e $f.before-checkpost ]; then mv $f.before-checkpost $f; fi; \
                      /opt/zmailer/lib/zmailer smtpserver";

const RESTART: &str = "/opt/zmailer/lib/zmailer smtpserver";
const WHY_RESTART: &str = "3 s without a listener. Afterwards prove it with a test mail: nothing else shows that the line \
                           was ignored";
const WHY_POLICY: &str = "without it mail of your own clients (_full_rights) is not filtered. In one of the two entries alone \
                          it does nothing. Then: /opt/zmailer/lib/policy-builder.sh";

/// The lines before and behind ours in process.cf.
const MARKS: Marks = Marks {
    begin: "# checkpost begin: every mail is asked about; only the word route lets it on",
    end: "# checkpost end",
};
/// Between them, before the cases of process(). The path is quoted: zmsh ends an unquoted word at its `-`.
const PROCESS: &str = "\tcase \"$file\" in\n\
                       \t[A-Z]/[0-9]*)\tcase \"$(\"/usr/bin/checkpost-zmailer\" router \"$file\")\" in\n\t\troute)\t;;\n\t\t*)\treturn ;;\n\t\tesac ;;\n\
                       \t[0-9]*)\t\tcase \"$(\"/usr/bin/checkpost-zmailer\" router \"$file\")\" in\n\t\troute)\t;;\n\t\t*)\treturn ;;\n\t\tesac ;;\n\
                       \tesac\n";
const WHY_PROCESS: &str = "mail from SMTP, from local programs and ZMailer's own. If the program is missing or fails, mail \
                           waits: what counts is the word that it says, since the router now and then loses an exit code and \
                           takes it for 0. The step fails, and changes nothing, where the two cases for files are not as they ship";
const REMOVE_PROCESS: &str = "f=/opt/zmailer/share/cf/process.cf; cp -p $f $f.new && \
                              awk '/^# checkpost begin/{s=1} !s{print} /^# checkpost end/{s=0}' $f > $f.new && mv $f.new $f && \
                              /opt/zmailer/lib/zmailer router";
const RESTART_ROUTER: &str = "/opt/zmailer/lib/zmailer router";
const WHY_ROUTER: &str = "mail waits meanwhile. An upgrade of ZMailer may put its own process.cf back: look after it";

const SMTP_WAY: &str = "[[way]]\nkind = \"zmailer-smtp\"\nlisten = \"unix:/run/checkpost/zmailer.sock\"\n";
const ROUTER_WAY: &str = "[[way]]\nkind = \"zmailer-router\"\nlisten = \"unix:/run/checkpost/zmailer-router.sock\"\n";

/// A command that puts these lines first in smtpserver.conf, in place of other lines with their keywords.
fn named(lines: &str, test: &str) -> String {
    let lines = lines.trim_end().replace('\n', "\\n");
    format!(
        "f={SMTPSERVER}; [ -e $f.before-checkpost ] || cp -p $f $f.before-checkpost; \
         cp -p $f $f.new && sed '/^PARAM[[:space:]]*contentfilter\\(-maxpar\\)\\{{0,1\\}}[[:space:]]/d' $f > $f.new && \
         sed -i '1i {lines}' $f.new && {test}mv $f.new $f"
    )
}

/// A command that puts our lines into process.cf, where its two cases for files are as they ship.
fn asked() -> String {
    let lines = format!("{}\n{PROCESS}{}\n", MARKS.begin, MARKS.end).replace('\t', "\\t").replace('\n', "\\n");
    format!(
        "f={PROCESS_CF}; [ -e $f.before-checkpost ] || cp -p $f $f.before-checkpost; \
         cp -p $f $f.new && awk '/^# checkpost begin/{{s=1}} !s{{print}} /^# checkpost end/{{s=0}}' $f | \
         awk -v ours='{lines}' '{{l[NR]=$0}} /^\\tcase \"\\$file\" in$/{{c=NR}} \
         /^\\t(\\[A-Z\\]\\/)?\\[0-9\\]\\*\\)[ \\t]*rfc822 \"\\$file\" ;;$/{{n++}} \
         END{{if(n!=2||!c){{exit 1}} for(i=1;i<=NR;i++){{if(i==c){{printf \"%s\",ours}} print l[i]}}}}' > $f.new && mv $f.new $f"
    )
}

/// All recipes.
pub const RECIPES: [Recipe<Step>; 3] = [
    Recipe {
        kind: "zmailer-smtp",
        method: Some("by a server that smtpserver asks at a socket"),
        way: SMTP_WAY,
        steps: &[Step::Server, Step::Socket, Step::Restart, Step::Policy],
    },
    Recipe {
        kind: "zmailer-smtp",
        method: Some("by a program that smtpserver starts"),
        way: SMTP_WAY,
        steps: &[Step::Program, Step::Restart, Step::Policy],
    },
    Recipe { kind: "zmailer-router", method: None, way: ROUTER_WAY, steps: &[Step::Process, Step::RestartRouter] },
];

#[cfg(test)]
mod tests {
    use std::process::Command;

    use checkpost_adapter::setup::Step as _;

    use super::*;

    /// Runs a command of the recipe on a file of the test's.
    fn changed(run: &str, file: &str, text: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text).unwrap();
        let here =
            |text: &str| text.replace(file, path.to_str().unwrap()).replace("test -x /usr/bin/checkpost-zmailer", ":");
        let done = Command::new("sh").args(["-ec", &here(run)]).output().unwrap();
        assert!(std::fs::read_to_string(&path).is_ok(), "the file is never missing");
        done.status.success().then(|| std::fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn the_socket_is_there_before_it_is_named_and_all_is_repeatable() {
        let [socket, program, router] = &RECIPES;
        assert_eq!((socket.kind, program.kind, router.kind), (crate::SMTP.name, crate::SMTP.name, crate::ROUTER.name));
        assert_eq!(socket.steps[..3], [Step::Server, Step::Socket, Step::Restart]);
        for entry in RECIPES.iter().flat_map(|recipe| recipe.plan().steps) {
            assert!(entry.run.is_none_or(|run| !run.contains("  ") && !run.contains('\n')));
        }
    }

    #[test]
    fn the_filter_is_named_once() {
        let stock = "#PARAM contentfilter $MAILBIN/smtp-contentfilter\n#PARAM contentfilter-maxpar 2  # x\nPARAM debug-contentfilter\nPARAM help\n*  * ftveR\n";
        for (step, lines) in [(Step::Socket, SOCKET), (Step::Program, PROGRAM)] {
            let run = step.entry().run.unwrap();
            let once = changed(&run, SMTPSERVER, stock).unwrap();
            assert_eq!(once, format!("{lines}{stock}"));
            assert_eq!(changed(&run, SMTPSERVER, &once).unwrap(), once);
            let other = format!("PARAM contentfilter\t/usr/lib/other\nPARAM contentfilter-maxpar 4\n{stock}");
            assert_eq!(changed(&run, SMTPSERVER, &other).unwrap(), once);
        }
    }

    #[test]
    fn the_router_asks_between_two_marks() {
        let stock = "process (file) {\n\tdb flush pwuid\n\n\tcase \"$file\" in\n#\t[0-9]*.x400)\tx400 \"$file\" ;;\n\
                     \t[A-Z]/[0-9]*)\trfc822 \"$file\" ;;\n\t[0-9]*)\t\trfc822 \"$file\" ;;\n\tcore*)\t\t/bin/mv \"$file\" ../x\n\t\treturn\n\t\t;;\n\tesac\n}\n";
        let run = asked();
        let once = changed(&run, PROCESS_CF, stock).unwrap();
        let ours = format!("{}\n{PROCESS}{}\n", MARKS.begin, MARKS.end);
        assert_eq!(once, stock.replacen("\tcase \"$file\" in\n", &format!("{ours}\tcase \"$file\" in\n"), 1));
        assert_eq!(changed(&run, PROCESS_CF, &once).unwrap(), once);
        let remove = REMOVE_PROCESS.strip_suffix(" && /opt/zmailer/lib/zmailer router").unwrap();
        assert_eq!(changed(remove, PROCESS_CF, &once).unwrap(), stock);
        // What is not as it ships is left alone.
        assert_eq!(changed(&run, PROCESS_CF, &stock.replace("\t[0-9]*)\t\trfc822", "\t[0-9]*)\tmine;  rfc822")), None);
    }
}
