/* The smallest server that health checks can ask: it listens on HTTP_PORT and
 * answers whatever it is sent with an empty page. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void) {
	const char *port = getenv("HTTP_PORT");
	struct sockaddr_in at = {.sin_family = AF_INET};
	static const char page[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	char request[4096];
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (!port)
		return 1;
	at.sin_port = htons(atoi(port));
	signal(SIGPIPE, SIG_IGN);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 16))
		return 1;
	for (;;) {
		int c = accept(fd, NULL, NULL);
		if (c < 0)
			continue;
		if (read(c, request, sizeof request) > 0)
			(void)!write(c, page, strlen(page));
		close(c);
	}
}
