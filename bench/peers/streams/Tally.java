import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The tally as a Kafka Streams application: first vote of a voter counts. Arguments: brokers, votes topic, tallies
 * topic, application id, state folder, threads, cached (true: the stores' own cache is on).
 *
 * Written by hand against the processor API, which is faster than the DSL: no repartitioning, as votes are
 * partitioned by voter already. A RocksDB store with a changelog holds who has voted; counts by option are
 * kept in a second one and sent on four times a second. Exactly once, version 2.
 */
public final class Tally {
    private static final byte[] SEEN = {1};
    private static final int OPTIONS = 10;

    public static void main(String[] arguments) {
        Properties config = new Properties();
        config.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        config.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments[3]);
        config.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        config.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, arguments[5]);
        config.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        config.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        config.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        config.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        config.put(StreamsConfig.consumerPrefix("max.poll.records"), 10_000);
        config.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        KafkaStreams streams = new KafkaStreams(topology(arguments[1], arguments[2],
                Boolean.parseBoolean(arguments[6])), config);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(5))));
        streams.start();
    }

    private static Topology topology(String votes, String tallies, boolean cached) {
        var bytes = Serdes.ByteArray();
        var voters = Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("voters"), bytes, bytes);
        var counts = Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore("counts"), Serdes.Integer(),
                Serdes.Long());
        if (cached) {
            voters = voters.withCachingEnabled();
            counts = counts.withCachingEnabled();
        }
        Topology topology = new Topology();
        topology.addSource("votes", bytes.deserializer(), bytes.deserializer(), votes);
        topology.addProcessor("tally", Count::new, "votes");
        topology.addStateStore(voters, "tally");
        topology.addStateStore(counts, "tally");
        topology.addSink("tallies", tallies, Serdes.Integer().serializer(), Serdes.Long().serializer(), "tally");
        return topology;
    }

    private static final class Count implements Processor<byte[], byte[], Integer, Long> {
        private ProcessorContext<Integer, Long> context;
        private KeyValueStore<byte[], byte[]> voters;
        private KeyValueStore<Integer, Long> counts;
        private final long[] totals = new long[OPTIONS];
        private final long[] sent = new long[OPTIONS];

        @Override
        public void init(ProcessorContext<Integer, Long> given) {
            context = given;
            voters = context.getStateStore("voters");
            counts = context.getStateStore("counts");
            for (int option = 0; option < OPTIONS; option++) {
                Long known = counts.get(option);
                totals[option] = known == null ? 0 : known;
            }
            context.schedule(Duration.ofMillis(250), PunctuationType.WALL_CLOCK_TIME, this::send);
        }

        /** A vote is the msgpack array [version, ballot, ...]; the ballot of one choice is two bytes. */
        @Override
        public void process(Record<byte[], byte[]> vote) {
            byte[] value = vote.value();
            if (value.length < 6 || (value[0] & 0xff) != 0x96 || value[1] != 1 || (value[2] & 0xff) != 0xc4
                    || value[3] != 2) {
                return;
            }
            int option = (value[4] & 0xff) << 8 | value[5] & 0xff;
            if (option < OPTIONS && voters.putIfAbsent(vote.key(), SEEN) == null) {
                totals[option]++;
                counts.put(option, totals[option]);
            }
        }

        private void send(long now) {
            for (int option = 0; option < OPTIONS; option++) {
                if (totals[option] != sent[option]) {
                    context.forward(new Record<>(option, totals[option], now));
                    sent[option] = totals[option];
                }
            }
        }
    }
}
