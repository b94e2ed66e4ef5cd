package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/listen"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/registry/proxy"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/peterbourgon/ff/v3/ffcli"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

// Variables of a workspace's outer ring. The program that starts the inner ring
// withholds variables with this prefix from it. bob removes them from its own
// environment after reading them.
const (
	workspaceBaseRef        = "WORKSPACEKIT_BOBPROXY_BASEREF"
	workspaceTargetRef      = "WORKSPACEKIT_BOBPROXY_TARGETREF"
	workspaceAuth           = "WORKSPACEKIT_BOBPROXY_AUTH"
	workspaceAdditionalAuth = "WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"
)

type proxyConfig struct {
	baseRef, targetRef   string
	auth, additionalAuth string
	listen               string
	listenAny            bool
	insecure             bool
	registryCA           string
	logFormat            string
	grace, retryFor      time.Duration
	stdout, stderr       io.Writer
}

func newProxyCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &proxyConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob proxy", flag.ContinueOnError)
	fs.StringVar(&cfg.baseRef, "base-ref", "", "`reference` behind the name base")
	fs.StringVar(&cfg.targetRef, "target-ref", "", "`reference` behind the name target")
	fs.StringVar(&cfg.auth, "auth", "", "`JSON` of a docker config with the credentials of both, or @FILE")
	fs.StringVar(&cfg.additionalAuth, "additional-auth", "", "`JSON` object of host and credentials for mirror requests (ns=HOST), or @FILE")
	fs.StringVar(&cfg.listen, "listen", "127.0.0.1:8080", "`address` to listen on: host:port on loopback, or unix:///path (default 127.0.0.1:8080)")
	fs.BoolVar(&cfg.listenAny, "listen-any", false, "allow --listen to name an address that other machines reach")
	fs.BoolVar(&cfg.insecure, "insecure", false, "allow plain HTTP and unverified TLS to any registry")
	fs.StringVar(&cfg.registryCA, "registry-ca", "", "`file` of PEM certificates to trust beside the machine's")
	fs.StringVar(&cfg.logFormat, "log-format", "text", "text or json `format` of the log on standard error (default text)")
	fs.DurationVar(&cfg.grace, "grace", 30*time.Second, "how `long` a push may pause between requests once bob is told to end (default 30s)")
	registerRetryFor(fs, &cfg.retryFor)
	return &ffcli.Command{
		Name:       "proxy",
		ShortUsage: "bob proxy [flags]",
		ShortHelp:  "Let builds without credentials push and pull two repositories",
		LongHelp: "Let builds without credentials push and pull two repositories, which are called base\n" +
			"and target here, until interrupted. Everybody who can reach it may use it.\n\n" +
			"The references and credentials are also read from " + workspaceBaseRef + ",\n" +
			workspaceTargetRef + ", " + workspaceAuth + " and\n" +
			workspaceAdditionalAuth + ". Flags show in the list of processes:\n" +
			"give credentials by these variables, or as @FILE. BOB_AUTH and BOB_ADDITIONAL_AUTH are refused.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *proxyConfig) exec(ctx context.Context, args []string) error {
	if len(args) > 0 {
		return cli.Errorf("bob proxy takes no arguments")
	}
	if err := cfg.readEnvironment(); err != nil {
		return err
	}
	handler, err := cfg.handler(ctx)
	if err != nil {
		return interrupted(ctx, err)
	}
	l, err := listen.On(ctx, cfg.listen, listen.Limits{
		Unix: true, Anywhere: cfg.listenAny, Why: "everybody who reaches it may push; --listen-any allows it",
	})
	if err != nil {
		return err
	}
	// Only root may read the memory of this process, which holds its first environment
	// too.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return errors.Join(fmt.Errorf("protect the credentials in memory: %w", err), l.Close())
	}
	if _, err := fmt.Fprintf(cfg.stdout, "listening on %s\n", listen.Address(l)); err != nil {
		return errors.Join(err, l.Close())
	}
	return cfg.serve(ctx, l, handler)
}

// readEnvironment reads the settings that no flag gives from the workspace's variables,
// and removes these variables.
func (cfg *proxyConfig) readEnvironment() error {
	for _, name := range []string{"BOB_AUTH", "BOB_ADDITIONAL_AUTH"} {
		if os.Getenv(name) != "" {
			return cli.Errorf("%s would be handed on to builds: use WORKSPACEKIT_BOBPROXY_AUTH or WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", name)
		}
	}
	for _, v := range []struct {
		name  string
		value *string
	}{
		{workspaceBaseRef, &cfg.baseRef},
		{workspaceTargetRef, &cfg.targetRef},
		{workspaceAuth, &cfg.auth},
		{workspaceAdditionalAuth, &cfg.additionalAuth},
	} {
		if *v.value == "" {
			*v.value = os.Getenv(v.name)
		}
		if err := os.Unsetenv(v.name); err != nil {
			return err
		}
	}
	return nil
}

func (cfg *proxyConfig) handler(ctx context.Context) (*proxy.Proxy, error) {
	if cfg.baseRef == "" && cfg.targetRef == "" {
		return nil, cli.Errorf("nothing to serve: give --base-ref or --target-ref")
	}
	o := proxy.Options{Base: cfg.baseRef, Target: cfg.targetRef, Insecure: cfg.insecure}
	var errPatience, errAuth, errMore, errCA error
	o.Patience, errPatience = patient(cfg.retryFor)
	o.Auth, errAuth = readCredentials(ctx, "auth", workspaceAuth, cfg.auth, proxy.ParseDockerConfig)
	o.AdditionalAuth, errMore = readCredentials(ctx, "additional-auth", workspaceAdditionalAuth, cfg.additionalAuth, proxy.ParseHosts)
	o.Roots, errCA = addCA(ctx, nil, "registry-ca", cfg.registryCA)
	errLog := cli.OneOf("log-format", cfg.logFormat, "text", "json")
	if o.Log = slog.New(slog.NewTextHandler(cfg.stderr, nil)); cfg.logFormat == "json" {
		o.Log = slog.New(slog.NewJSONHandler(terminal.JSON(cfg.stderr), nil))
	}
	if err := errors.Join(errPatience, errAuth, errMore, errCA, errLog); err != nil {
		return nil, err
	}
	p, err := proxy.New(o)
	if err != nil {
		return nil, cli.Errorf("%v", err)
	}
	return p, nil
}

// readCredentials parses the value of a flag, or the file that it names.
func readCredentials(ctx context.Context, flagName, variable, value string, parse func(string) (proxy.Credentials, error)) (proxy.Credentials, error) {
	where := "--" + flagName + " or " + variable
	if file, ok := strings.CutPrefix(value, "@"); ok {
		body, err := bounded.ReadFile(ctx, file, maxConfig)
		if err != nil {
			return proxy.Credentials{}, cli.About(flagName, "", cli.Errorf("%s: %v", where, err))
		}
		where, value = file, string(body)
	}
	c, err := parse(value)
	if err != nil {
		return proxy.Credentials{}, cli.About(flagName, "", cli.Errorf("%s: %v", where, err))
	}
	return c, nil
}

const (
	headerTimeout  = time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// maxConnections is how many clients may be connected at once: each takes memory.
	maxConnections = 512
)

// serve answers requests until ctx ends, and then waits for running pushes. A second
// signal ends these too.
func (cfg *proxyConfig) serve(ctx context.Context, l net.Listener, handler *proxy.Proxy) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	srv := &http.Server{
		Handler: handler, DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // the client gets the error
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(netutil.LimitListener(l, maxConnections)) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	rest, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	go func() {
		for range 2 { // the first has ended ctx
			select {
			case <-signals:
			case <-rest.Done():
				return
			}
		}
		stop(errors.New("a second signal"))
	}()
	if err := handler.Drain(rest, cfg.grace); err == nil {
		_ = srv.Shutdown(rest) // it fails when rest ends
	}
	_ = srv.Close() // closes connections that a second signal left open
	return context.Cause(ctx)
}
