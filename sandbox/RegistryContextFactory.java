import java.lang.reflect.Proxy;
import java.net.URI;
import java.rmi.registry.LocateRegistry;
import java.util.Hashtable;
import javax.naming.Context;
import javax.naming.NamingException;
import javax.naming.ServiceUnavailableException;
import javax.naming.spi.InitialContextFactory;

/** Looks up rmi://host:port/name for nodetool, as the module jdk.naming.rmi of a full JDK would. */
public final class RegistryContextFactory implements InitialContextFactory {
    @Override
    public Context getInitialContext(Hashtable<?, ?> environment) {
        Class<?>[] faces = {Context.class};
        return (Context) Proxy.newProxyInstance(getClass().getClassLoader(), faces, (proxy, method, args) -> {
            switch (method.getName()) {
                case "lookup":
                    return lookup(URI.create(args[0].toString()));
                case "close":
                    return null;
                default:
                    throw new UnsupportedOperationException(method.getName());
            }
        });
    }

    private static Object lookup(URI name) throws NamingException {
        try {
            return LocateRegistry.getRegistry(name.getHost(), name.getPort()).lookup(name.getPath().substring(1));
        } catch (Exception cause) {
            NamingException wrapped = new ServiceUnavailableException(cause.getMessage());
            wrapped.setRootCause(cause);
            throw wrapped;
        }
    }
}
