/**
 * Formats a broker's storage if it is new, then runs the broker, in one virtual machine: starting a second one
 * for the formatting costs more than half a second.
 *
 * <p>Arguments: server.properties, cluster id.
 */
public final class KafkaBroker {
    private KafkaBroker() {}

    public static void main(String[] args) {
        String[] format = {"format", "--ignore-formatted", "--cluster-id", args[1], "--config", args[0]};
        int failed = kafka.tools.StorageTool.execute(format, System.out);
        if (failed != 0) {
            System.exit(failed);
        }
        kafka.Kafka.main(new String[] {args[0]});
    }
}
