// Command keelson runs and inspects Keelson fleets.
//
//	keelson up            run the project's services, gateway and engine
//	keelson logs          show what its services write
//	keelson restart       restart services
//	keelson down          stop it
//	keelson status        show the running system at a glance
//	keelson services      look at the services that are up, and steer them
//	keelson doctor        find out what is wrong, and how to put it right
//	keelson token         print a token for the development gateway
//	keelson version       print the version
//
// stdout is data, stderr is talk. Exit codes: 0 ok, 1 failure, 2 usage,
// 3 unreachable, 4 authentication, 5 not found, 6 conflict, 7 timeout,
// 130 interrupted.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/keelson-go/keelson/lifecycle"
)

func main() {
	hangup := context.Background()
	if !signal.Ignored(syscall.SIGHUP) { // as it is under nohup
		var stop context.CancelFunc
		hangup, stop = signal.NotifyContext(hangup, syscall.SIGHUP)
		defer stop()
	}
	ctx, forced, stop := lifecycle.Signals(hangup)
	app := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv, forced: forced}
	code := app.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
