/*
 * A milter that takes every event and looks at nothing: the yardstick of `cargo xtask bench milter`.
 * Not an example of a filter: it exists to show what libmilter and the protocol cost alone.
 *
 *   cc -O2 -o empty empty.c -lmilter -lpthread
 *   ./empty unix:/path/to/socket    or    ./empty inet:PORT@127.0.0.1
 */
#include <libmilter/mfapi.h>
#include <stdio.h>
#include <sys/stat.h>

static sfsistat on_connect(SMFICTX *c, char *host, _SOCK_ADDR *peer) { (void)c, (void)host, (void)peer; return SMFIS_CONTINUE; }
static sfsistat on_helo(SMFICTX *c, char *name) { (void)c, (void)name; return SMFIS_CONTINUE; }
static sfsistat on_envelope(SMFICTX *c, char **args) { (void)c, (void)args; return SMFIS_CONTINUE; }
static sfsistat on_header(SMFICTX *c, char *name, char *value) { (void)c, (void)name, (void)value; return SMFIS_CONTINUE; }
static sfsistat on_event(SMFICTX *c) { (void)c; return SMFIS_CONTINUE; }
static sfsistat on_body(SMFICTX *c, unsigned char *bytes, size_t length) { (void)c, (void)bytes, (void)length; return SMFIS_CONTINUE; }
static sfsistat on_unknown(SMFICTX *c, const char *line) { (void)c, (void)line; return SMFIS_CONTINUE; }

static struct smfiDesc filter = {
	.xxfi_name = "empty",
	.xxfi_version = SMFI_VERSION,
	.xxfi_connect = on_connect,
	.xxfi_helo = on_helo,
	.xxfi_envfrom = on_envelope,
	.xxfi_envrcpt = on_envelope,
	.xxfi_data = on_event,
	.xxfi_header = on_header,
	.xxfi_eoh = on_event,
	.xxfi_body = on_body,
	.xxfi_eom = on_event,
	.xxfi_abort = on_event,
	.xxfi_close = on_event,
	.xxfi_unknown = on_unknown,
};

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: empty SOCKET\n");
		return 64;
	}
	umask(0); /* An MTA of another user must be able to connect. */
	if (smfi_setconn(argv[1]) != MI_SUCCESS || smfi_setbacklog(128) != MI_SUCCESS || smfi_register(filter) != MI_SUCCESS)
		return 69;
	return smfi_main() == MI_SUCCESS ? 0 : 70;
}
