/* A stand-in for Exim, as far as local_scan() sees it: it exports what Debian's exim4 exports, loads the library as
   Debian's patch does, and calls it with mails that it is told of on standard input. Written from Exim's manual (chapter
   "Adding a local scan function") and from the declarations in exim4-dev's local_scan.h, not from the library.

   Compiled with -rdynamic. With -DWITHOUT_STORE it is an Exim that does not export store_get_3.

   Commands, one a line; in values \n, \r and \\ are escaped:
     offset N          octets in the file before the body: 19 up to Exim 4.96, 26 from 4.97 on
     sender A          without A: the null sender
     recipient A, client A, name A, helo A, user A, cipher A, id A
     header K TEXT     a header line of type K
     local             it comes from a local program, without SMTP
     body FILE         a file with the body's octets
     descriptor N      this is given instead of the file's: -1, or one that is not open
     timeout N         local_scan_timeout, in seconds
     call              runs it, prints what came of it, and forgets the mail
     repeat N          runs it N times, each with the mail as it was, and prints descriptors and memory after the first
                       and after the last */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef unsigned char uschar;
typedef unsigned BOOL;

typedef struct header_line {
  struct header_line *next;
  int type;
  int slen;
  uschar *text;
} header_line;

typedef struct recipient_item {
  uschar *address;
  int pno;
  uschar *errors_to;
  uschar *orcpt;
  int dsn_flags;
} recipient_item;

header_line *header_list, *header_last;
uschar *sender_address, *sender_host_address, *sender_host_name, *message_id, *local_scan_path;
int recipients_count;
recipient_item *recipients_list;
BOOL smtp_input = 1, smtp_batched_input;

static uschar *helo, *user, *cipher;
static char logged[8192];
static sigjmp_buf env;

/* The store: one block after another, all freed with the mail. */

struct block { struct block *next; max_align_t octets[]; };
static struct block *store;

void *store_get_real(int size) {
  struct block *block = malloc(sizeof *block + (size_t)size);
  if (size <= 0 || !block) abort();
  memset(block->octets, 0xAA, (size_t)size);
  block->next = store;
  store = block;
  return block->octets;
}

#ifndef WITHOUT_STORE
void *store_get_3(int size, const void *proto, const char *function, int line) {
  (void)proto; (void)function; (void)line;
  return store_get_real(size);
}
#endif

static void store_reset(void) {
  while (store) {
    struct block *next = store->next;
    free(store);
    store = next;
  }
}

static uschar *copy(const char *text) {
  uschar *to = store_get_real((int)strlen(text) + 1);
  return (uschar *)strcpy((char *)to, text);
}

void log_write(unsigned selector, int flags, const char *format, ...) {
  size_t used = strlen(logged);
  va_list arguments;
  (void)selector;
  va_start(arguments, format);
  used += (size_t)snprintf(logged + used, sizeof logged - used, "%d ", flags);
  used += (size_t)vsnprintf(logged + used, sizeof logged - used, format, arguments);
  snprintf(logged + used, sizeof logged - used, ";");
  va_end(arguments);
}

uschar *expand_string(uschar *string) {
  uschar *value = NULL;
  if (!strcmp((char *)string, "$sender_helo_name")) value = helo;
  else if (!strcmp((char *)string, "$authenticated_id")) value = user;
  else if (!strcmp((char *)string, "$tls_in_cipher")) value = cipher;
  else return NULL;
  return value ? value : (uschar *)"";
}

void receive_add_recipient(uschar *recipient, int pno) {
  recipient_item *list = store_get_real((int)(sizeof *list * (size_t)(recipients_count + 1)));
  if (recipients_count) memcpy(list, recipients_list, sizeof *list * (size_t)recipients_count);
  memset(list + recipients_count, 0, sizeof *list);
  list[recipients_count].address = recipient;
  list[recipients_count++].pno = pno;
  recipients_list = list;
}

BOOL receive_remove_recipient(uschar *recipient) {
  for (int at = 0; at < recipients_count; at++)
    if (!strcmp((char *)recipients_list[at].address, (char *)recipient)) {
      recipients_count--;
      memmove(recipients_list + at, recipients_list + at + 1, sizeof *recipients_list * (size_t)(recipients_count - at));
      return 1;
    }
  return 0;
}

/* As in Exim: it comes back here from wherever the library was. */

static void jump(int signal) { siglongjmp(env, signal); }

static int (*scan)(int, uschar **);

static void load(const char *path, const char *name) {
  void *library = dlopen(path, RTLD_NOW);
  int (*version)(void);
  if (!library) { printf("open failed: %s\n", dlerror()); exit(3); }
  if (!(*(void **)&version = dlsym(library, "local_scan_version_major"))) exit(4);
  printf("version %d", version());
  if (!(*(void **)&version = dlsym(library, "local_scan_version_minor"))) exit(4);
  printf(".%d\n", version());
  if (!(*(void **)&scan = dlsym(library, name))) exit(4);
}

static int descriptors(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/fd");
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static long memory(void) {
  char line[256];
  long size = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status)) sscanf(line, "VmRSS: %ld", &size);
  fclose(status);
  return size;
}

static void escaped(const uschar *text) {
  for (; *text; text++)
    if (*text == '\n') fputs("\\n", stdout);
    else if (*text == '\r') fputs("\\r", stdout);
    else if (*text == '\\') fputs("\\\\", stdout);
    else putchar(*text);
}

static void unescape(char *text) {
  char *to = text;
  for (; *text; text++)
    if (*text == '\\') { text++; *to++ = *text == 'n' ? '\n' : *text == 'r' ? '\r' : *text; }
    else *to++ = *text;
  *to = 0;
}

/* What Exim relies on. */

static void check_header(void) {
  header_line *line, *last = NULL;
  for (line = header_list; line; last = line, line = line->next)
    if (line->slen != (int)strlen((char *)line->text) || line->slen < 1 || line->text[line->slen - 1] != '\n') {
      printf("broken header line\n");
      exit(5);
    }
  if (last != header_last) { printf("header_last is another line\n"); exit(5); }
}

static char *octets_of(FILE *file, long *size) {
  char *octets;
  fseek(file, 0, SEEK_END);
  *size = ftell(file);
  rewind(file);
  octets = malloc((size_t)*size + 1);
  if (fread(octets, 1, (size_t)*size, file) != (size_t)*size) abort();
  return octets;
}

static int run(int fd, int timeout, uschar **text) {
  int code, signal;
  *text = NULL;
  if ((signal = sigsetjmp(env, 1))) {
    printf(signal == SIGALRM ? "timed out\n" : "crashed with signal %d\n", signal);
    exit(6);
  }
  alarm((unsigned)timeout);
  code = scan(fd, text);
  alarm(0);
  return code;
}

int main(int count, char **arguments) {
  static char line[1 << 20];
  int offset = 19, timeout = 0, instead = -2;
  char *body = strdup("/dev/null");
  struct sigaction action = {.sa_handler = jump};
  int signals[] = {SIGSEGV, SIGFPE, SIGILL, SIGBUS, SIGALRM};
  (void)count;
  for (unsigned at = 0; at < sizeof signals / sizeof *signals; at++) sigaction(signals[at], &action, NULL);
  /* A library that writes to a socket without a reader must not end Exim. */
  signal(SIGPIPE, SIG_DFL);
  local_scan_path = (uschar *)arguments[1];
  load(arguments[1], arguments[2]);
  sender_address = copy("");
  while (fgets(line, sizeof line, stdin)) {
    char *value;
    line[strcspn(line, "\n")] = 0;
    if ((value = strchr(line, ' '))) *value++ = 0; else value = line + strlen(line);
    unescape(value);
    if (!strcmp(line, "offset")) offset = atoi(value);
    else if (!strcmp(line, "timeout")) timeout = atoi(value);
    else if (!strcmp(line, "descriptor")) instead = atoi(value);
    else if (!strcmp(line, "sender")) sender_address = copy(value);
    else if (!strcmp(line, "client")) sender_host_address = copy(value);
    else if (!strcmp(line, "name")) sender_host_name = copy(value);
    else if (!strcmp(line, "helo")) helo = copy(value);
    else if (!strcmp(line, "user")) user = copy(value);
    else if (!strcmp(line, "cipher")) cipher = copy(value);
    else if (!strcmp(line, "id")) message_id = copy(value);
    else if (!strcmp(line, "recipient")) receive_add_recipient(copy(value), -1);
    else if (!strcmp(line, "local")) smtp_input = 0;
    else if (!strcmp(line, "body")) { free(body); body = strdup(value); }
    else if (!strcmp(line, "header")) {
      header_line *new = store_get_real(sizeof *new);
      new->next = NULL;
      new->type = *value;
      new->text = copy(value + 2);
      new->slen = (int)strlen((char *)new->text);
      if (header_last) header_last->next = new; else header_list = new;
      header_last = new;
    } else if (!strcmp(line, "call") || !strcmp(line, "repeat")) {
      int times = *line == 'r' ? atoi(value) : 1, code = -1, first_descriptors = 0;
      long size, after, first_memory = 0;
      uschar *text;
      FILE *from = fopen(body, "r"), *data = tmpfile();
      char *before, *now;
      if (!from || !data) { printf("%s: %s\n", body, strerror(errno)); exit(7); }
      before = octets_of(from, &size);
      fclose(from);
      fprintf(data, "%.*s-D\n", offset - 3, "1wABCD-000000001aB-0001");
      fwrite(before, 1, (size_t)size, data);
      free(before);
      fflush(data);
      before = octets_of(data, &size);
      for (int at = 0; at < times; at++) {
        lseek(fileno(data), offset, SEEK_SET);
        code = run(instead == -2 ? fileno(data) : instead, timeout, &text);
        if (at == 0) { first_descriptors = descriptors(); first_memory = memory(); }
      }
      printf("rc %d\ntext ", code);
      if (text) escaped(text); else putchar('-');
      putchar('\n');
      for (int at = 0; at < recipients_count; at++) printf("recipient %s\n", recipients_list[at].address);
      check_header();
      for (header_line *at = header_list; at; at = at->next) {
        printf("header %c ", at->type);
        escaped(at->text);
        putchar('\n');
      }
      if (lseek(fileno(data), 0, SEEK_CUR) != offset) printf("the descriptor was moved\n");
      now = octets_of(data, &after);
      if (after != size || memcmp(before, now, (size_t)size)) printf("the file was written to\n");
      free(before);
      free(now);
      if (times > 1)
        printf("descriptors %d %d\nmemory %ld %ld\n", first_descriptors, descriptors(), first_memory, memory());
      printf("log %s\n", logged);
      fclose(data);
      *logged = 0;
      store_reset();
      header_list = header_last = NULL;
      recipients_list = NULL;
      recipients_count = 0;
      sender_host_address = sender_host_name = message_id = helo = user = cipher = NULL;
      sender_address = copy("");
      instead = -2;
      smtp_input = 1;
      printf("end\n");
      fflush(stdout);
    }
  }
  return 0;
}
