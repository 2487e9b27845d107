/*
 * mock.c - a provider that speaks OpenAI chat completions, for measuring what stands in front of it.
 *
 *   mock PORT [CHUNKS]
 *
 * One thread, epoll, HTTP/1.1 keep-alive, 127.0.0.1 only. It must never be what limits a run: replies are
 * prebuilt and requests are scanned, not parsed.
 *
 *   POST <any path>, body without "stream":true  -> a chat.completion of about 700 bytes
 *   POST <any path>, body with    "stream":true  -> SSE: a role chunk, CHUNKS (100) content chunks, a finish chunk,
 *        a usage chunk when the body has "include_usage":true, and data: [DONE].
 *        DELAY_MS > 0: a content chunk every DELAY_MS. DELAY_MS = 0: as fast as the peer reads, GROUP chunks a write.
 *        The text of a content chunk is " tNNNNNNNNNNNNNNNNNNN", the CLOCK_MONOTONIC nanoseconds at which it was
 *        made, so that a client on the same machine knows how long it was on its way.
 *   GET /mode/DELAY_MS/GROUP -> sets the pace of later streams
 *   GET /stats               -> counters as JSON: requests, streams, streams the peer left, events written
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

#define IN_MAX (4 << 20)

typedef struct conn conn;
struct conn {
	int fd;
	char *in; size_t in_len, in_cap;
	char *out; size_t out_len, out_off, out_cap;
	int streaming, next_chunk, delay_ms, group, want_usage, want_close, writable_armed, dead;
	uint64_t due;         /* ns, of the next paced chunk */
	conn *next, *prev; int queued;
	conn *next_dead;
};

static int ep, listen_fd, n_chunks = 100, pace_ms, pace_group = 10;
static conn *due_head, *due_tail;   /* paced streams by due time: one pace for all, so first in, first out */
static conn *dead_list;
static struct {
	unsigned long requests, streams, aborted, events;
} st;

static const char JSON_BODY[] =
	"{\"id\":\"chatcmpl-CkQ2b7yJ0uYdT3mVvXf1sN8eRwLpA\",\"object\":\"chat.completion\","
	"\"created\":1763810000,\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,"
	"\"message\":{\"role\":\"assistant\",\"content\":\"A gateway sits between clients and model"
	" providers, checks keys, applies limits and keeps an account of use.\",\"refusal\":null,"
	"\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{"
	"\"prompt_tokens\":212,\"completion_tokens\":24,\"total_tokens\":236,"
	"\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
	"\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,"
	"\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}},"
	"\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0705bf87c0\"}";

#define CHUNK_HEAD \
	"data: {\"id\":\"chatcmpl-CkQ2b7yJ0uYdT3mVvXf1sN8eRwLpA\",\"object\":\"chat.completion.chunk\"," \
	"\"created\":1763810000,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\"," \
	"\"system_fingerprint\":\"fp_0705bf87c0\","
#define FIRST CHUNK_HEAD "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"," \
	"\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define CONTENT_A CHUNK_HEAD "\"choices\":[{\"index\":0,\"delta\":{\"content\":\" t"
#define CONTENT_B "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
#define FINISH CHUNK_HEAD "\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE CHUNK_HEAD "\"choices\":[],\"usage\":{\"prompt_tokens\":212,\"completion_tokens\":100," \
	"\"total_tokens\":312,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0}," \
	"\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0," \
	"\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}\n\n"
#define DONE "data: [DONE]\n\n"

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void out_reserve(conn *c, size_t n)
{
	if (c->out_off == c->out_len) c->out_off = c->out_len = 0;
	if (c->out_len + n > c->out_cap) {
		while (c->out_len + n > c->out_cap) c->out_cap = c->out_cap ? c->out_cap * 2 : 8192;
		c->out = realloc(c->out, c->out_cap);
	}
}

static void out_add(conn *c, const char *s, size_t n)
{
	out_reserve(c, n);
	memcpy(c->out + c->out_len, s, n);
	c->out_len += n;
}

static void unqueue(conn *c)
{
	if (!c->queued) return;
	if (c->prev) c->prev->next = c->next; else due_head = c->next;
	if (c->next) c->next->prev = c->prev; else due_tail = c->prev;
	c->next = c->prev = NULL;
	c->queued = 0;
}

static void enqueue(conn *c)
{
	c->prev = due_tail; c->next = NULL;
	if (due_tail) due_tail->next = c; else due_head = c;
	due_tail = c;
	c->queued = 1;
}

static void conn_close(conn *c)
{
	if (c->dead) return;
	if (c->streaming) { st.aborted++; c->streaming = 0; }
	unqueue(c);
	close(c->fd);
	c->dead = 1;
	c->next_dead = dead_list;   /* freed after this round of events */
	dead_list = c;
}

/* Sends what is buffered. 1: all gone, 0: the socket is full, -1: closed. */
static int flush_out(conn *c)
{
	while (c->out_off < c->out_len) {
		ssize_t w = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
		if (w < 0) {
			if (errno == EINTR) continue;
			if (errno != EAGAIN) { conn_close(c); return -1; }
			if (!c->writable_armed) {
				struct epoll_event e = { .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP, .data.ptr = c };
				epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
				c->writable_armed = 1;
			}
			return 0;
		}
		c->out_off += w;
	}
	if (c->writable_armed) {
		struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = c };
		epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
		c->writable_armed = 0;
	}
	return 1;
}

/* One SSE event as one HTTP chunk. */
static void add_event(conn *c, const char *s, size_t n)
{
	char h[16];
	int k = snprintf(h, sizeof h, "%zx\r\n", n);
	out_reserve(c, k + n + 2);
	out_add(c, h, k);
	out_add(c, s, n);
	out_add(c, "\r\n", 2);
	st.events++;
}

static void add_content(conn *c)
{
	char ev[sizeof CONTENT_A + 20 + sizeof CONTENT_B];
	size_t a = sizeof CONTENT_A - 1, b = sizeof CONTENT_B - 1;
	uint64_t t = now_ns();
	memcpy(ev, CONTENT_A, a);
	for (int i = 18; i >= 0; i--) { ev[a + i] = '0' + t % 10; t /= 10; }
	memcpy(ev + a + 19, CONTENT_B, b);
	add_event(c, ev, a + 19 + b);
	c->next_chunk++;
}

static void add_tail(conn *c)
{
	add_event(c, FINISH, sizeof FINISH - 1);
	if (c->want_usage) add_event(c, USAGE, sizeof USAGE - 1);
	add_event(c, DONE, sizeof DONE - 1);
	out_add(c, "0\r\n\r\n", 5);
	c->streaming = 0;
}

static int consume(conn *c);

/* After a reply is whole: close, or take the next request already buffered. */
static void reply_done(conn *c)
{
	if (c->want_close) conn_close(c);
	else consume(c);
}

/* Writes the reply until it ends, the socket is full, or a paced chunk is awaited. */
static void pump(conn *c)
{
	for (;;) {
		int r = flush_out(c);
		if (r <= 0) return;
		if (!c->streaming) { reply_done(c); return; }
		if (c->delay_ms) return;         /* the timer feeds it */
		for (int i = 0; i < c->group && c->next_chunk < n_chunks; i++) add_content(c);
		if (c->next_chunk >= n_chunks) add_tail(c);
	}
}

static const char *skip_ws(const char *p, const char *e)
{
	while (p < e && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n')) p++;
	return p;
}

/* 1 when the body holds  key : true  ; key is given with its quotes. */
static int key_true(const char *b, size_t n, const char *key)
{
	const char *e = b + n, *p = b;
	size_t k = strlen(key);
	while ((p = memmem(p, e - p, key, k))) {
		const char *q = skip_ws(p + k, e);
		if (q < e && *q == ':') {
			q = skip_ws(q + 1, e);
			if (e - q >= 4 && !memcmp(q, "true", 4)) return 1;
		}
		p += k;
	}
	return 0;
}

static void reply_text(conn *c, const char *type, const char *body, size_t n)
{
	char h[512];
	int k = snprintf(h, sizeof h,
		"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
		"x-request-id: req_5f0c7d3a9b4e4f0a8a1d2c3b4e5f6071\r\nopenai-processing-ms: 12\r\n"
		"openai-version: 2020-10-01\r\nx-ratelimit-limit-requests: 10000\r\n"
		"x-ratelimit-remaining-requests: 9999\r\n\r\n", type, n);
	out_add(c, h, k);
	out_add(c, body, n);
}

static void start_reply(conn *c, const char *head, const char *body, size_t n)
{
	if (!strncmp(head, "GET ", 4)) {
		char b[256];
		int d, g;
		if (sscanf(head + 4, "/mode/%d/%d", &d, &g) == 2 && d >= 0 && g > 0) {
			pace_ms = d;
			pace_group = g;
		}
		int k = snprintf(b, sizeof b, "{\"requests\":%lu,\"streams\":%lu,\"aborted\":%lu,\"events\":%lu}\n",
			st.requests, st.streams, st.aborted, st.events);
		reply_text(c, "application/json", b, k);
		return;
	}
	st.requests++;
	if (!key_true(body, n, "\"stream\"")) {
		reply_text(c, "application/json", JSON_BODY, sizeof JSON_BODY - 1);
		return;
	}
	static const char H[] =
		"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
		"Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n"
		"x-request-id: req_5f0c7d3a9b4e4f0a8a1d2c3b4e5f6071\r\nopenai-processing-ms: 12\r\n"
		"openai-version: 2020-10-01\r\n\r\n";
	st.streams++;
	c->streaming = 1;
	c->next_chunk = 0;
	c->delay_ms = pace_ms;
	c->group = pace_group;
	c->want_usage = key_true(body, n, "\"include_usage\"");
	out_add(c, H, sizeof H - 1);
	add_event(c, FIRST, sizeof FIRST - 1);
	if (c->delay_ms) {
		c->due = now_ns() + c->delay_ms * 1000000ull;
		enqueue(c);
	}
}

static const char *header(const char *head, const char *end, const char *name)
{
	size_t k = strlen(name);
	for (const char *p = memchr(head, '\n', end - head); p && p + 1 < end;
	     p = memchr(p + 1, '\n', end - p - 1))
		if ((size_t)(end - p - 1) > k && !strncasecmp(p + 1, name, k) && p[1 + k] == ':')
			return skip_ws(p + 2 + k, end);
	return NULL;
}

/* Takes one whole request from the input buffer. 1 when there was one. */
static int consume(conn *c)
{
	char *eoh = c->in_len >= 4 ? memmem(c->in, c->in_len, "\r\n\r\n", 4) : NULL;
	if (!eoh) return 0;
	char *end = eoh + 4, *body = end, *lim = c->in + c->in_len;
	size_t blen = 0, used;
	const char *v;
	if ((v = header(c->in, end, "content-length"))) blen = strtoul(v, NULL, 10);
	if ((size_t)(lim - end) < blen) return 0;
	used = end - c->in + blen;
	v = header(c->in, end, "connection");
	c->want_close = v && !strncasecmp(v, "close", 5);
	start_reply(c, c->in, body, blen);
	memmove(c->in, c->in + used, c->in_len - used);
	c->in_len -= used;
	pump(c);
	return 1;
}

static void on_readable(conn *c)
{
	for (;;) {
		if (c->in_len + 16384 > c->in_cap) {
			c->in_cap = c->in_cap ? c->in_cap * 2 : 32768;
			if (c->in_cap > IN_MAX) { conn_close(c); return; }
			c->in = realloc(c->in, c->in_cap);
		}
		size_t room = c->in_cap - c->in_len;
		ssize_t r = recv(c->fd, c->in + c->in_len, room, 0);
		if (r == 0) { conn_close(c); return; }
		if (r < 0) {
			if (errno == EINTR) continue;
			if (errno != EAGAIN) { conn_close(c); return; }
			break;
		}
		c->in_len += r;
		if ((size_t)r < room) break;
	}
	if (!c->streaming && c->out_off == c->out_len) consume(c);
}

static void on_accept(void)
{
	int fd, one = 1;
	while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		conn *c = calloc(1, sizeof *c);
		c->fd = fd;
		struct epoll_event e = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = c };
		epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
	}
}

/* Sends the paced chunks that are due; returns ms until the next one, or -1. */
static int run_timers(void)
{
	uint64_t now = now_ns();
	while (due_head && due_head->due <= now) {
		conn *c = due_head;
		unqueue(c);
		add_content(c);
		if (c->next_chunk >= n_chunks) add_tail(c);
		else { c->due += c->delay_ms * 1000000ull; enqueue(c); }
		pump(c);
	}
	if (!due_head) return -1;
	now = now_ns();
	return due_head->due <= now ? 0 : (int)((due_head->due - now + 999999) / 1000000);
}

int main(int argc, char **argv)
{
	int one = 1;
	if (argc < 2) { fprintf(stderr, "usage: mock PORT [CHUNKS]\n"); return 2; }
	if (argc > 2) n_chunks = atoi(argv[2]);
	signal(SIGPIPE, SIG_IGN);
	ep = epoll_create1(0);
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(listen_fd, (void *)&a, sizeof a) || listen(listen_fd, 4096)) { perror("mock"); return 1; }
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };
	epoll_ctl(ep, EPOLL_CTL_ADD, listen_fd, &e);
	for (int wait = -1;; wait = run_timers()) {
		struct epoll_event ev[256];
		int n = epoll_wait(ep, ev, 256, wait);
		for (int k = 0; k < n; k++) {
			conn *c = ev[k].data.ptr;
			if (!c) { on_accept(); continue; }
			if (!c->dead && ev[k].events & EPOLLOUT) pump(c);
			if (!c->dead && ev[k].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) on_readable(c);
		}
		while (dead_list) {
			conn *c = dead_list;
			dead_list = c->next_dead;
			free(c->in); free(c->out); free(c);
		}
	}
}
