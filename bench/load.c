/*
 * load.c - HTTP/1.1 and SSE load on a chat-completions server.
 *
 *   load -b BODY_FILE -k KEYS_FILE [-c CONNS] [-d SECONDS | -n REQUESTS] [-w WARM_S] [-s SPREAD_S] [-S EVERY]
 *        [-t IDLE_TIMEOUT_S] PORT
 *
 * One thread, epoll, closed loop: CONNS connections, each with one request in flight, kept alive between requests.
 * Requests take the client keys of KEYS_FILE (one a line, all of one length) in turn. -s spreads the first requests
 * over SPREAD_S seconds. -w starts the counting after WARM_S. -S makes every EVERYth connection a slow reader: a small
 * receive buffer, SLOW_BYTES each SLOW_MS.
 *
 * A reply is read to its end (Content-Length, chunked, or EOF). Its body is scanned for lines that begin "data:". A line
 * that holds the mock's stamp (" t" and 19 digits, CLOCK_MONOTONIC ns) tells how long a chunk was on its way.
 *
 * Writes one JSON object. Times are in microseconds.
 *   all         replies, those before the counting included; the rest counts only those that ended after WARM_S
 *   ok          replies with status 200 that ended as framed
 *   bad         other statuses;  errors: broken, cut short or timed-out replies
 *   events      "data:" lines;   stamped: of these, with a stamp
 *   done        "data: [DONE]" lines;  usage: lines that hold "usage":{
 *   ttfb        request sent -> first body byte
 *   total       request sent -> end of the reply
 *   transit     per chunk: made by the mock -> read here
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD, BODY_LEN, BODY_EOF, CHUNK_SIZE, CHUNK_DATA, CHUNK_CRLF, TRAILER };
#define LINE_MAX_KEPT 4096
#define SLOW_BYTES 4096
#define SLOW_MS 100

typedef struct {
	int fd, busy, state, status, keep, connected, retried, slow, paused;
	uint64_t t0;                 /* when the request was sent */
	uint64_t t_io;               /* the last time anything happened */
	int have_body;
	const char *req;
	size_t left, off;            /* body or chunk bytes left; request bytes sent */
	char head[8192]; size_t head_len;
	char line[LINE_MAX_KEPT]; size_t line_len;
} conn;

typedef struct { uint32_t *v; size_t n, cap; } series;

static int ep, n_conns = 1;
static long max_req = -1, started, finished;
static double secs = 10, warm, spread, idle_timeout = 30;
static conn *cs;
static char *reqs; static size_t req_len, n_reqs;   /* one request a key, all of one length */
static struct sockaddr_in addr;
static uint64_t t_start, t_warm, t_end;
static series ttfb, total, transit;
static struct { long ok, bad, errors, events, stamped, done, usage, bytes; int bad_status; char bad_body[200]; } r;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void add(series *s, uint64_t from, uint64_t to)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 65536;
		s->v = realloc(s->v, s->cap * sizeof *s->v);
	}
	s->v[s->n++] = to > from ? (uint32_t)((to - from) / 1000) : 0;
}

static void arm(conn *c, uint32_t ev, int op)
{
	struct epoll_event e = { .events = ev, .data.ptr = c };
	epoll_ctl(ep, op, c->fd, &e);
}

static void send_req(conn *c);

static void open_conn(conn *c)
{
	int one = 1;
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (c->slow) { int size = SLOW_BYTES; setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); }
	c->connected = 1;
	if (connect(c->fd, (void *)&addr, sizeof addr) && errno != EINPROGRESS) { perror("connect"); exit(1); }
	arm(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

static void drop(conn *c)
{
	if (c->connected) close(c->fd);
	c->connected = 0;
}

static void begin(conn *c, uint64_t t0)
{
	c->req = reqs + started++ % n_reqs * req_len;
	c->busy = 1; c->t0 = c->t_io = t0; c->state = HEAD; c->head_len = 0; c->off = 0;
	c->have_body = c->paused = 0; c->line_len = 0; c->status = 0; c->retried = 0;
	if (!c->connected) open_conn(c);
	else { if (c->slow) arm(c, EPOLLIN, EPOLL_CTL_MOD); send_req(c); }
}

static int may_start(uint64_t now)
{
	return now < t_end && (max_req < 0 || started < max_req);
}

static void finish(conn *c, int good)
{
	uint64_t now = now_ns();
	c->busy = 0;
	finished++;
	if (!good || !c->keep) drop(c);
	if (now >= t_warm) {
		if (!good) r.errors++;
		else if (c->status != 200) {
			if (!r.bad++) {
				r.bad_status = c->status;
				memcpy(r.bad_body, c->line, c->line_len < 199 ? c->line_len : 199);
			}
		}
		else { r.ok++; add(&total, c->t0, now); }
	}
	if (may_start(now)) begin(c, now);
}

static void send_req(conn *c)
{
	while (c->off < req_len) {
		ssize_t w = send(c->fd, c->req + c->off, req_len - c->off, MSG_NOSIGNAL);
		if (w < 0) {
			if (errno == EAGAIN || errno == EINTR) { arm(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD); return; }
			drop(c);
			if (!c->retried) { c->retried = 1; c->off = 0; open_conn(c); return; }
			finish(c, 0);
			return;
		}
		c->off += w;
	}
}

static void on_line(const char *s, size_t n)
{
	uint64_t now;
	if (n < 5 || memcmp(s, "data:", 5)) return;
	now = now_ns();
	int counted = now >= t_warm;
	r.events += counted;
	if (n < 20 && memmem(s, n, "[DONE]", 6)) { r.done += counted; return; }
	const char *p = s + n;
	for (const char *q = s; (q = memmem(q, p - q, " t", 2)); q += 2) {
		uint64_t t = 0;
		int i = 0;
		while (i < 19 && q + 2 + i < p && q[2 + i] >= '0' && q[2 + i] <= '9') t = t * 10 + (q[2 + i++] - '0');
		if (i < 19) continue;
		if (counted) { r.stamped++; add(&transit, t, now); }
		return;
	}
	if (memmem(s, n, "\"usage\":{", 9) || memmem(s, n, "\"usage\": {", 10)) r.usage += counted;
}

static void on_body(conn *c, const char *s, size_t n)
{
	if (!c->have_body) {
		uint64_t now = now_ns();
		c->have_body = 1;
		if (now >= t_warm) add(&ttfb, c->t0, now);
	}
	r.bytes += n;
	while (n) {
		const char *nl = memchr(s, '\n', n);
		size_t k = nl ? (size_t)(nl - s) : n;
		if (nl && !c->line_len) on_line(s, k);
		else {
			size_t room = LINE_MAX_KEPT - c->line_len, m = k < room ? k : room;
			memcpy(c->line + c->line_len, s, m);
			c->line_len += m;
			if (nl) { on_line(c->line, c->line_len); c->line_len = 0; }
		}
		if (nl) k++;
		s += k; n -= k;
	}
}

static int parse_head(conn *c)
{
	const char *p = c->head, *e = c->head + c->head_len;
	int chunked = 0; long len = -1;
	c->keep = 1;
	c->status = c->head_len > 12 ? atoi(p + 9) : 0;
	while ((p = memchr(p, '\n', e - p)) && ++p < e) {
		if (!strncasecmp(p, "content-length:", 15)) len = atol(p + 15);
		else if (!strncasecmp(p, "transfer-encoding:", 18)) chunked = 1;
		else if (!strncasecmp(p, "connection:", 11) && strcasestr(p, "close") && strcasestr(p, "close") < strchr(p, '\n')) c->keep = 0;
	}
	if (chunked) { c->state = CHUNK_SIZE; c->left = 0; c->head_len = 0; return 0; }
	if (len >= 0) { c->state = BODY_LEN; c->left = len; return len == 0; }
	c->state = BODY_EOF; c->keep = 0;
	return 0;
}

/* Takes bytes of a reply. 1: the reply is whole, -1: not HTTP. */
static int feed(conn *c, const char *s, size_t n)
{
	size_t k;
	while (n) switch (c->state) {
	case HEAD:
		if (c->head_len >= sizeof c->head - 1) return -1;
		c->head[c->head_len++] = *s++; n--;
		if (c->head_len >= 4 && !memcmp(c->head + c->head_len - 4, "\r\n\r\n", 4)) {
			c->head[c->head_len] = 0;
			if (parse_head(c)) return 1;
		}
		break;
	case BODY_LEN:
		k = n < c->left ? n : c->left;
		on_body(c, s, k); s += k; n -= k; c->left -= k;
		if (!c->left) return 1;
		break;
	case BODY_EOF:
		on_body(c, s, n); n = 0;
		break;
	case CHUNK_SIZE:
		if (*s == '\n') {
			c->head[c->head_len] = 0;
			c->left = strtoul(c->head, NULL, 16);
			c->head_len = 0;
			c->state = c->left ? CHUNK_DATA : TRAILER;
		} else if (c->head_len < 64) c->head[c->head_len++] = *s;
		s++; n--;
		break;
	case CHUNK_DATA:
		k = n < c->left ? n : c->left;
		on_body(c, s, k); s += k; n -= k; c->left -= k;
		if (!c->left) c->state = CHUNK_CRLF;
		break;
	case CHUNK_CRLF:
		if (*s == '\n') c->state = CHUNK_SIZE;
		s++; n--;
		break;
	case TRAILER:                       /* ends with an empty line */
		if (*s == '\n') { if (!c->head_len) return 1; c->head_len = 0; }
		else if (*s != '\r') c->head_len++;
		s++; n--;
		break;
	}
	return 0;
}

static void on_event(conn *c, uint32_t ev)
{
	static char buf[256 << 10];
	if (!c->busy) { drop(c); return; }   /* an idle connection closed by the gateway */
	if (ev & EPOLLOUT) {
		arm(c, EPOLLIN, EPOLL_CTL_MOD);
		send_req(c);
		if (!c->busy || !c->connected) return;
	}
	if (!(ev & ~EPOLLOUT)) return;
	ssize_t n = recv(c->fd, buf, c->slow ? SLOW_BYTES : sizeof buf, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
	if (n <= 0) {
		if (n == 0 && c->state == BODY_EOF) { finish(c, 1); return; }
		drop(c);
		if (c->state == HEAD && !c->head_len && !c->retried) {  /* a keep-alive race */
			c->retried = 1; c->off = 0; open_conn(c);
			return;
		}
		finish(c, 0);
		return;
	}
	c->t_io = now_ns();
	if (c->slow) { c->paused = 1; arm(c, 0, EPOLL_CTL_MOD); }
	int w = feed(c, buf, n);
	if (w) finish(c, w > 0);
}

static int cmp(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static void print_series(const char *name, series *s)
{
	double sum = 0;
	if (!s->n) { printf(",\"%s\":null", name); return; }
	qsort(s->v, s->n, sizeof *s->v, cmp);
	for (size_t i = 0; i < s->n; i++) sum += s->v[i];
#define P(q) s->v[(size_t)((q) * (s->n - 1) + 0.5)]
	printf(",\"%s\":{\"n\":%zu,\"mean\":%.1f,\"p50\":%u,\"p90\":%u,\"p99\":%u,\"p999\":%u,\"max\":%u}",
		name, s->n, sum / s->n, P(.5), P(.9), P(.99), P(.999), s->v[s->n - 1]);
}

static char *read_file(const char *path, size_t *len)
{
	FILE *f = path ? fopen(path, "rb") : NULL;
	if (!f) { perror(path ? path : "-b and -k are needed"); exit(2); }
	char *text = malloc(4 << 20);
	*len = fread(text, 1, (4 << 20) - 1, f);
	text[*len] = 0;
	fclose(f);
	return text;
}

static void build_requests(const char *keys_file, const char *body_file, int port)
{
	size_t keys_len, body_len, cap;
	char *keys = read_file(keys_file, &keys_len), *body = read_file(body_file, &body_len);
	size_t key_len = strcspn(keys, "\n");
	cap = key_len + body_len + 512;
	for (char *key = keys; key + key_len <= keys + keys_len; key += key_len + 1) {
		reqs = realloc(reqs, n_reqs * req_len + cap);
		char *to = reqs + n_reqs++ * req_len;
		req_len = snprintf(to, cap, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
			"Accept: */*\r\nContent-Length: %zu\r\nAuthorization: Bearer %.*s\r\n\r\n", port, body_len, (int)key_len, key);
		memcpy(to + req_len, body, body_len);
		req_len += body_len;
	}
	free(keys);
	free(body);
}

int main(int argc, char **argv)
{
	const char *body_file = NULL, *keys_file = NULL;
	int o, slow_every = 0;
	signal(SIGPIPE, SIG_IGN);
	while ((o = getopt(argc, argv, "c:d:n:w:s:S:k:b:t:")) != -1) switch (o) {
	case 'c': n_conns = atoi(optarg); break;
	case 'd': secs = atof(optarg); break;
	case 'n': max_req = atol(optarg); break;
	case 'w': warm = atof(optarg); break;
	case 's': spread = atof(optarg); break;
	case 'S': slow_every = atoi(optarg); break;
	case 'k': keys_file = optarg; break;
	case 'b': body_file = optarg; break;
	case 't': idle_timeout = atof(optarg); break;
	default: return 2;
	}
	if (optind >= argc) { fprintf(stderr, "load ... PORT\n"); return 2; }
	int port = atoi(argv[optind]);
	build_requests(keys_file, body_file, port);
	addr.sin_family = AF_INET;
	addr.sin_port = htons(port);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

	ep = epoll_create1(0);
	cs = calloc(n_conns, sizeof *cs);
	for (int i = 0; slow_every && i < n_conns; i += slow_every) cs[i].slow = 1;
	t_start = now_ns();
	t_warm = t_start + (uint64_t)(warm * 1e9);
	t_end = max_req >= 0 ? UINT64_MAX : t_start + (uint64_t)((warm + secs) * 1e9);

	int launched = 0;
	uint64_t now = t_start, swept = t_start, resumed = t_start;
	for (;;) {
		int wait = 100;
		now = now_ns();
		while (launched < n_conns && may_start(now)) {
			uint64_t due = t_start + (uint64_t)(launched * spread * 1e9 / n_conns);
			if (due > now) { wait = (int)((due - now) / 1000000); break; }
			begin(&cs[launched++], now);
		}
		if (started == finished && !may_start(now)) break;
		if (now - swept > 500000000ull) {
			swept = now;
			for (int i = 0; i < n_conns; i++)
				if (cs[i].busy && now - cs[i].t_io > idle_timeout * 1e9) { drop(&cs[i]); finish(&cs[i], 0); }
		}
		if (slow_every && now - resumed >= SLOW_MS * 1000000ull) {
			resumed = now;
			for (int i = 0; i < n_conns; i += slow_every)
				if (cs[i].paused && cs[i].busy) { cs[i].paused = 0; arm(&cs[i], EPOLLIN, EPOLL_CTL_MOD); }
		}
		struct epoll_event ev[256];
		int n = epoll_wait(ep, ev, 256, wait);
		for (int k = 0; k < n; k++) on_event(ev[k].data.ptr, ev[k].events);
	}
	double el = (now_ns() - t_warm) / 1e9;
	printf("{\"secs\":%.3f,\"ok\":%ld,\"bad\":%ld,\"errors\":%ld,\"per_s\":%.1f,\"events\":%ld,\"events_per_s\":%.0f,"
		"\"stamped\":%ld,\"done\":%ld,\"usage\":%ld,\"bytes\":%ld,\"all\":%ld",
		el, r.ok, r.bad, r.errors, r.ok / el, r.events, r.events / el, r.stamped, r.done, r.usage, r.bytes, finished);
	if (r.bad) { printf(",\"bad_status\":%d", r.bad_status); fprintf(stderr, "status %d: %s\n", r.bad_status, r.bad_body); }
	print_series("ttfb", &ttfb);
	print_series("total", &total);
	print_series("transit", &transit);
	printf("}\n");
	return r.errors || r.bad;
}
