// Command otlp-receiver is the OpenTelemetry collector's own receiver of OTLP, over gRPC and over HTTP.
//
//	otlp-receiver GRPC_ADDRESS HTTP_ADDRESS FILE [PEM]
//
// With a certificate and its key in PEM it speaks TLS only. It appends a line to FILE for each request: {"authorization": what the header said, "request": OTLP's JSON}.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/ptrace"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	file, err := os.OpenFile(os.Args[3], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	check(err)
	lines, err := consumer.NewTraces(writer(file))
	check(err)
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig()
	protocols := map[string]any{}
	for number, name := range []string{"grpc", "http"} {
		protocol := map[string]any{"endpoint": os.Args[1+number], "include_metadata": true}
		if len(os.Args) > 4 {
			protocol["tls"] = map[string]any{"cert_file": os.Args[4], "key_file": os.Args[4]}
		}
		protocols[name] = protocol
	}
	check(confmap.NewFromStringMap(map[string]any{"protocols": protocols}).Unmarshal(config))
	receiver, err := factory.CreateTraces(ctx, receiver.Settings{
		ID:                component.NewID(factory.Type()),
		TelemetrySettings: componenttest.NewNopTelemetrySettings(),
		BuildInfo:         component.NewDefaultBuildInfo(),
	}, config, lines)
	check(err)
	check(receiver.Start(ctx, componenttest.NewNopHost()))
	log.Print("listening")
	<-ctx.Done()
	check(receiver.Shutdown(ctx))
}

func writer(file *os.File) consumer.ConsumeTracesFunc {
	var lock sync.Mutex
	return func(ctx context.Context, traces ptrace.Traces) error {
		request, err := (&ptrace.JSONMarshaler{}).MarshalTraces(traces)
		if err != nil {
			return err
		}
		line, err := json.Marshal(map[string]any{
			"authorization": client.FromContext(ctx).Metadata.Get("authorization"),
			"request":       json.RawMessage(request),
		})
		if err != nil {
			return err
		}
		lock.Lock()
		defer lock.Unlock()
		_, err = file.Write(append(line, '\n'))
		return err
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
